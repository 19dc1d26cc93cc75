"""Pages that are generated from the code when the site is built.

Each module makes pages of one kind. A maker returns the path of every file below `docs/pages` with
its content: Markdown as text, pictures as bytes.
"""

from collections.abc import Callable

from generators import c_api, commands, failures, messages, notebook, samplers, study_keys

__all__ = ["MAKERS"]

MAKERS: tuple[Callable[[], dict[str, str | bytes]], ...] = (
    study_keys.pages,
    commands.pages,
    samplers.pages,
    c_api.pages,
    messages.pages,
    failures.pages,
    notebook.pages,
)

"""Where a key of a study stands: the line of the file, or the `--set` that gave it."""

from collections.abc import Iterable
from pathlib import Path

import yaml

__all__ = ["place_of"]


def place_of(key: str, path: Path, overrides: Iterable[str] = ()) -> str:
    """Says where a key is to be changed.

    Args:
        key: For example `simulation.fields.u.shape`.
        path: The study file.
        overrides: Values of `--set`.

    Returns:
        The line with its number and text; where the key is not written, the line of the section that it goes into.
    """
    for override in overrides:
        name = override.partition("=")[0].strip()
        if key == name or key.startswith(f"{name}."):
            return f"--set {override}"
    text = path.read_text(encoding="utf-8")
    node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    line, found = 0, True
    for part in key.split("."):
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        entry = next((pair for pair in pairs if pair[0].value == part), None)
        if entry is None:
            found = False
            break
        line, node = entry[0].start_mark.line, entry[1]
    where = f"{path}:{line + 1}: {text.splitlines()[line].strip()}"
    return where if found else f"{where} (add {key} there)"

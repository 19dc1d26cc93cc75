"""Finds the line of a study file, or the `--set` option, that sets a key."""

from collections.abc import Iterable
from pathlib import Path

import yaml

__all__ = ["locate_key"]


def locate_key(key: str, path: Path, overrides: Iterable[str] = ()) -> str:
    """Describes where the value of a key is set.

    Args:
        key: The key, for example `simulation.fields.u.shape`.
        path: The study file.
        overrides: Values of `--set`, which take precedence over the file.

    Returns:
        The line of the file with its number, or the `--set` option. If the key is not set, the line of the section to
        which it can be added.
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

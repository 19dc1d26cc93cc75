"""Reads and writes files in YAML, with the plain words of version 1.2."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from melissa_gen.errors import StudyError

__all__ = ["line_of", "read_mapping", "to_yaml", "yaml_value"]

# Apart from its own errors, PyYAML raises these for invalid dates and numbers and for deep nesting.
_NOT_YAML = (yaml.YAMLError, ValueError, OverflowError, RecursionError)


class _Loader(yaml.SafeLoader):
    """YAML loader of version 1.2's plain words.

    `on`, `yes`, 010, 1:30 and 2026-01-01 are text, 1e-3 is a number, and a duplicate key is an error. PyYAML reads
    these words as version 1.1 did: as true, true, 8, 90 and a date.
    """


class _Dumper(yaml.SafeDumper):
    """YAML dumper: strings that `_Loader` or a reader of version 1.1 would not read as strings are quoted."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(
                None, None, "a key is not a plain word", key.start_mark
            )
        if key.tag == "tag:yaml.org,2002:merge":
            continue
        word = loader.construct_object(key)
        if word in seen:
            msg = f"the key '{word}' is written twice"
            raise yaml.constructor.ConstructorError(None, None, msg, key.start_mark)
        seen.add(word)
    loader.flatten_mapping(node)
    return {
        loader.construct_object(key): loader.construct_object(value, deep=True)
        for key, value in node.value
    }


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_PLAIN = {
    "bool": (r"(?:true|True|TRUE|false|False|FALSE)", "tTfF"),
    "int": (r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    "float": (
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
}
"""The words of each type that are not text, and their first characters."""


def _resolvers(dropped: set[str]) -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Returns PyYAML's patterns of words that are not text, without those of the dropped types."""
    tags = {f"tag:yaml.org,2002:{name}" for name in dropped}
    found = yaml.SafeLoader.yaml_implicit_resolvers
    return {first: [p for p in pairs if p[0] not in tags] for first, pairs in found.items()}


_Loader.yaml_implicit_resolvers = _resolvers({*_PLAIN, "timestamp"})
_Dumper.yaml_implicit_resolvers = _resolvers(set())
for _class in (_Loader, _Dumper):
    for _name, (_pattern, _first) in _PLAIN.items():
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})\Z"), list(_first)
        )


def to_yaml(data: Mapping[str, Any]) -> str:
    """Returns a mapping as YAML text."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_mapping(path: Path) -> dict[str, Any]:
    """Reads a YAML file that contains a mapping of sections.

    Raises:
        StudyError: The file can't be read, or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        msg = f"{path}: can't read the study file: {error.strerror}"
        raise StudyError(msg) from None
    except UnicodeDecodeError:
        msg = f"{path}: is not a text file in UTF-8; save it with this encoding"
        raise StudyError(msg) from None
    try:
        data = yaml.load(text, Loader=_Loader)
    except _NOT_YAML as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        if r"'\t'" in problem:
            problem = "it contains a tab; indent with spaces"
        msg = f"{path}:{where} is not valid YAML: {problem}"
        raise StudyError(msg) from None
    if data is None:
        msg = f"{path}: is empty; a study is a mapping of sections such as 'simulation:'"
        raise StudyError(msg)
    if not isinstance(data, dict):
        msg = f"{path}: holds {type(data).__name__}; a study is a mapping of sections such as 'simulation:'"
        raise StudyError(msg)
    return data


def line_of(path: Path, location: Sequence[Any]) -> int:
    """Returns the line of a key in a YAML file, or of the innermost section on the way to it; 0 if it is not there.

    Args:
        path: The file.
        location: The keys, and indices in lists, from the outermost.
    """
    node = yaml.compose(path.read_text(encoding="utf-8"), Loader=_Loader)
    line = 0
    for part in location:
        if isinstance(node, yaml.MappingNode):
            pairs = [(key, value) for key, value in node.value if key.value == str(part)]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            pairs = [(value, value) for value in node.value[part : part + 1]]
        else:
            break
        if not pairs:
            break
        key, node = pairs[0]
        line = key.start_mark.line + 1
    return line


def yaml_value(text: str) -> Any:
    """Returns the value of a text in YAML.

    Raises:
        ValueError: The text is not valid YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except _NOT_YAML:
        msg = f"{text!r} is not valid YAML"
        raise ValueError(msg) from None

"""Reads and writes study files, applies overrides, and formats validation errors as one sentence."""

import json
import re
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from melissa_gen.errors import StudyError
from melissa_gen.study.cluster_profile import merge_profile
from melissa_gen.study.hints import dotted_keys, key_hint, line_to_write, word_hint
from melissa_gen.study.study import Study

__all__ = ["json_schema", "load_study", "write_study"]

_RENAMED = {"server.patience": "server.heartbeat_timeout"}
"""Keys of earlier versions, to the keys that replace them."""
_TAGS = ("distribution", "format")
"""Keys that select one of several section types (tags of tagged unions)."""
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


def load_study(
    path: Path, overrides: Iterable[str] | Mapping[str, Any] = (), folder: Path | None = None
) -> Study:
    """Reads and checks a study file.

    Args:
        path: The YAML file.
        overrides: Values that replace those of the file: words `section.key=value` with YAML values, or a mapping of
            `section.key` to Python values.
        folder: Folder to which relative paths in the study refer; default: the file's folder.

    Returns:
        The study, complete with defaults.

    Raises:
        StudyError: One sentence with the file, the key, what was found and what is legal.
    """
    data = read_mapping(path)
    sources = {}
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            _put(data, key, value, source=f"override {key!r}")
            sources[key] = f"override {key!r}"
    else:
        for override in overrides:
            sources[_set(data, override)] = f"--set {override}"
    data = merge_profile(data, path.resolve().parent, read_mapping)
    try:
        study = Study.model_validate(data)
    except ValidationError as error:
        key, text = _sentence(data, error)
        msg = f"{sources.get(key, path)}: {text}"
        raise StudyError(msg) from None
    study._folder = folder or path.resolve().parent
    try:
        str(study._folder).encode()
    except UnicodeEncodeError:
        msg = f"{path}: the name of the study's folder {study._folder} is not text in UTF-8; rename the folder"
        raise StudyError(msg) from None
    return study


def write_study(study: Study, path: Path) -> None:
    """Writes a study including all defaults."""
    data = study.model_dump(mode="json", by_alias=True)
    path.write_text(to_yaml(data), encoding="utf-8")


def to_yaml(data: Mapping[str, Any]) -> str:
    """Returns a mapping as YAML text."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def json_schema() -> str:
    """Returns the study file's JSON Schema, for editors that complete and check YAML."""
    schema = Study.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2)


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
        msg = f"{path}: is not a text file in UTF-8"
        raise StudyError(msg) from None
    try:
        data = yaml.load(text, Loader=_Loader)
    except _NOT_YAML as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        msg = f"{path}:{where} is not valid YAML: {problem}"
        raise StudyError(msg) from None
    if data is None:
        msg = f"{path}: is empty; a study is a mapping of sections such as 'simulation:'"
        raise StudyError(msg)
    if not isinstance(data, dict):
        msg = f"{path}: holds {type(data).__name__}; a study is a mapping of sections such as 'simulation:'"
        raise StudyError(msg)
    return data


def _set(data: dict[str, Any], override: str) -> str:
    """Applies an override of the form `section.key=value` and returns its key."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        msg = f"--set {override}: write section.key=value, for example --set training.batch_size=64"
        raise StudyError(msg)
    try:
        value = yaml.load(text, Loader=_Loader)
    except _NOT_YAML:
        msg = f"--set {override}: the value is not valid YAML"
        raise StudyError(msg) from None
    key = ".".join(parts)
    _put(data, key, value, source=f"--set {override}")
    return key


def _put(data: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Sets the value of a dotted key. `source` names the override in error messages."""
    *sections, last = key.split(".")
    node = data
    for section in sections:
        if node.get(section) is None:
            node[section] = {}
        node = node[section]
        if not isinstance(node, dict):
            msg = f"{source}: '{section}' is a value, not a section"
            raise StudyError(msg)
    node[last] = value


def _sentence(data: dict[str, Any], error: ValidationError) -> tuple[str, str]:
    """Returns the key of the first error and a sentence that describes it."""
    details = error.errors(include_url=False)
    # A misspelled key causes two errors, unknown and missing: report the unknown key.
    first = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
    location = _keys(data, first["loc"])
    if location[-1:] == ["[key]"]:
        del location[-1]
    key = ".".join(str(part) for part in location)
    kind = first["type"]
    if kind == "extra_forbidden" and key in _RENAMED:
        text = f"the key '{key}' was renamed to '{_RENAMED[key]}'"
    elif kind == "extra_forbidden":
        legal = _legal_keys(data, location[:-1])
        word = str(location[-1])
        hint = key_hint(word, legal, _all_keys())
        text = f"unknown key '{key}'{hint}; legal: {', '.join(legal)}"
    elif kind == "missing":
        text = f"the key '{key}' is missing"
    elif kind == "union_tag_invalid":
        word, legal = _tags(data, location)
        tag = str(first["ctx"]["tag"])
        text = f"{key}.{word} is '{tag}'{word_hint(tag, legal)}; legal: {', '.join(legal)}"
    elif kind == "union_tag_not_found":
        word, legal = _tags(data, location)
        text = f"the key '{key}.{word}' is missing; legal: {', '.join(legal)}"
    elif kind == "value_error":
        reason = first["msg"].removeprefix("Value error, ")
        found = "" if isinstance(first["input"], dict | BaseModel) else f" {_short(first['input'])}"
        text = f"{key}{found} {reason}".strip()
    else:
        reason = first["msg"][0].lower() + first["msg"][1:]
        hint = ""
        if kind == "literal_error":
            hint = word_hint(str(first["input"]), str(first["ctx"]["expected"]).split("'")[1::2])
        elif line := line_to_write(
            str(location[-1]), kind, first["input"], _expected(data, location)
        ):
            reason = line
        text = f"{key} is {_short(first['input'])}{hint}; {reason}"
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return key, f"{text}{more}"


def _all_keys() -> list[str]:
    """Returns the dotted keys of all sections."""
    sections = {name: _model(field.annotation, {}) for name, field in Study.model_fields.items()}
    return dotted_keys(
        {
            name: [field.alias or key for key, field in model.model_fields.items()] if model else []
            for name, model in sections.items()
        }
    )


def _expected(data: Mapping[str, Any], location: list[Any]) -> list[str]:
    """Returns the keys of the section that is expected at a location; [] if no section is."""
    try:
        return _legal_keys(data, location)
    except (KeyError, IndexError, TypeError):
        return []


def _keys(data: Any, location: Iterable[Any]) -> list[Any]:
    """Returns the keys of a location, without the tags that pydantic inserts for tagged unions."""
    keys: list[Any] = []
    node = data
    for part in location:
        tagged = isinstance(node, dict) and part not in node
        if tagged and part in [node.get(word) for word in _TAGS]:
            continue
        keys.append(part)
        known = isinstance(node, dict | list) and not tagged
        try:
            node = node[part] if known else None
        except (IndexError, TypeError):
            node = None
    return keys


def _tags(data: Mapping[str, Any], location: list[Any]) -> tuple[str, list[str]]:
    """Returns the tag key of the tagged union at a location, and its legal values."""
    for word in _TAGS:
        fields = [m.model_fields.get(word) for m in _models(_annotation(data, location)[0])]
        legal = [tag for field in fields if field for tag in get_args(field.annotation)]
        if legal:
            return word, sorted(legal)
    return "", []


def _short(value: Any) -> str:
    """Returns a value in a short form for a message."""
    words = reprlib.Repr()
    words.maxstring = words.maxother = 60
    return words.repr(value)


def _legal_keys(data: Mapping[str, Any], location: list[Any]) -> list[str]:
    """Returns the legal keys at a location of the study."""
    annotation, node = _annotation(data, location)
    model = _model(annotation, node)
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _annotation(data: Mapping[str, Any], location: list[Any]) -> tuple[Any, Any]:
    """Returns the type annotation and the data at a location of the study."""
    annotation: Any = Study
    node: Any = data
    for part in location:
        node = node[part]
        model = _model(annotation, node)
        if model is None:
            # A dict has arbitrary keys and values of one type.
            annotation = get_args(annotation)[1]
        else:
            annotation = {f.alias or n: f.annotation for n, f in model.model_fields.items()}[part]
    return annotation, node


def _model(annotation: Any, node: Any) -> type[BaseModel] | None:
    """Returns the model of an annotation; for a tagged union, the one that the data select."""
    if get_origin(annotation) is dict:
        return None
    models = _models(annotation)
    for model in models:
        tags = [model.model_fields[word] for word in _TAGS if word in model.model_fields]
        if tags and isinstance(node, dict):
            legal = get_args(tags[0].annotation)
            if any(node.get(word) in legal for word in _TAGS):
                return model
    return models[0] if models else None


def _models(annotation: Any) -> list[type[BaseModel]]:
    return [m for m in _leaves(annotation) if isinstance(m, type) and issubclass(m, BaseModel)]


def _leaves(annotation: Any) -> list[Any]:
    parts = [leaf for part in get_args(annotation) for leaf in _leaves(part)]
    return parts or [annotation]

"""Describes the first error of a study in one sentence: the key, what was found, and what is legal."""

from collections.abc import Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from melissa_gen.legal_values import legal_value, short_value
from melissa_gen.study.hints import dotted_keys, key_hint, line_to_write, word_hint

__all__ = ["describe"]

_RENAMED = {"server.patience": "server.heartbeat_timeout"}
"""Keys of earlier versions, to the keys that replace them."""
_TAGS = ("distribution", "format")
"""Keys that select one of several section types (tags of tagged unions)."""


def describe(
    root: type[BaseModel], data: Mapping[str, Any], error: ValidationError
) -> tuple[list[Any], str]:
    """Returns the keys that lead to the first error, from the outermost, and a sentence that describes it.

    Args:
        root: The model that has refused the data.
        data: The data.
        error: The exception that the model has raised.
    """
    details = error.errors(include_url=False)
    # A misspelled key causes two errors, unknown and missing: report the unknown key.
    first = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
    start = _keys(data, first)
    # One value of a union causes an error for each of its types: report that of the section for a section.
    same = [d for d in details if _keys(data, d)[: len(start)] == start]
    if first["type"] == "literal_error" and isinstance(first["input"], dict):
        first = next((d for d in same if not isinstance(d["input"], dict)), same[-1])
    location = _keys(data, first)
    others = {tuple(_keys(data, d)) for d in details if d not in same}
    more = f" (and {len(others)} more)" if others else ""
    return location, f"{_sentence(root, data, first, location)}{more}"


def _sentence(
    root: type[BaseModel], data: Mapping[str, Any], error: Any, location: list[Any]
) -> str:
    key = ".".join(str(part) for part in location)
    kind = error["type"]
    if kind == "extra_forbidden" and key in _RENAMED:
        return f"the key '{key}' was renamed to '{_RENAMED[key]}'"
    if kind == "extra_forbidden":
        legal = _legal_keys(root, data, location[:-1])
        hint = key_hint(str(location[-1]), legal, _all_keys(root))
        return f"unknown key '{key}'{hint}; legal: {', '.join(legal)}"
    if kind == "missing":
        return f"the key '{key}' is missing"
    if kind == "union_tag_invalid":
        word, legal = _tags(root, data, location)
        tag = error["input"].get(word)
        hint = word_hint(str(tag), legal)
        return f"{key}.{word} is {short_value(tag)}{hint}; legal: {', '.join(legal)}"
    if kind == "union_tag_not_found":
        word, legal = _tags(root, data, location)
        return f"the key '{key}.{word}' is missing; legal: {', '.join(legal)}"
    if kind == "invalid_key":
        where = f" in {key}" if key else ""
        return f"{short_value(error['input'])} is not legal as a key{where}; a key is a string"
    if kind == "value_error":
        reason = error["msg"].removeprefix("Value error, ")
        found = (
            ""
            if isinstance(error["input"], dict | BaseModel)
            else f" {short_value(error['input'])}"
        )
        return f"{key}{found} {reason}".strip()
    hint = ""
    if kind == "literal_error":
        hint = word_hint(str(error["input"]), str(error["ctx"]["expected"]).split("'")[1::2])
    expected = _expected(root, data, location)
    line = line_to_write(str(location[-1]) if location else "", kind, error["input"], expected)
    return f"{key} is {short_value(error['input'])}{hint}; {line or legal_value(error)}"


def _all_keys(root: type[BaseModel]) -> list[str]:
    """Returns the dotted keys of all sections."""
    sections = {name: _model(field.annotation, {}) for name, field in root.model_fields.items()}
    return dotted_keys(
        {
            name: [field.alias or key for key, field in model.model_fields.items()] if model else []
            for name, model in sections.items()
        }
    )


def _expected(root: type[BaseModel], data: Mapping[str, Any], location: list[Any]) -> list[str]:
    """Returns the keys of the section that is expected at a location; [] if no section is."""
    try:
        return _legal_keys(root, data, location)
    except (KeyError, IndexError, TypeError):
        return []


def _keys(data: Any, error: Any) -> list[Any]:
    """Returns the keys of an error's location, without the types that pydantic inserts for unions."""
    keys: list[Any] = []
    node = data
    *sections, last = error["loc"] or ("",)
    for part in sections:
        if _is_part(node, part):
            keys.append(part)
            node = node[part]
    found = _is_part(node, last) or error["type"] in ("missing", "extra_forbidden")
    return [*keys, last] if found and last != "[key]" else keys


def _is_part(node: Any, part: Any) -> bool:
    """Whether a part of a location is a key of a section, or the index of an element of a list."""
    if isinstance(node, list):
        return isinstance(part, int) and part < len(node)
    return isinstance(node, dict) and part in node


def _tags(
    root: type[BaseModel], data: Mapping[str, Any], location: list[Any]
) -> tuple[str, list[str]]:
    """Returns the tag key of the tagged union at a location, and its legal values."""
    for word in _TAGS:
        fields = [m.model_fields.get(word) for m in _models(_annotation(root, data, location)[0])]
        legal = [tag for field in fields if field for tag in get_args(field.annotation)]
        if legal:
            return word, sorted(legal)
    return "", []


def _legal_keys(root: type[BaseModel], data: Mapping[str, Any], location: list[Any]) -> list[str]:
    """Returns the legal keys at a location of the study."""
    annotation, node = _annotation(root, data, location)
    model = _model(annotation, node)
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _annotation(
    root: type[BaseModel], data: Mapping[str, Any], location: list[Any]
) -> tuple[Any, Any]:
    """Returns the type annotation and the data at a location of the study."""
    annotation: Any = root
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

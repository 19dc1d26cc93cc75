"""Describes the first error of a study in one sentence: the key, what was found, and what is legal."""

import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from melissa_gen.study.hints import dotted_keys, key_hint, line_to_write, word_hint

__all__ = ["describe"]

_RENAMED = {"server.patience": "server.heartbeat_timeout"}
"""Keys of earlier versions, to the keys that replace them."""
_TAGS = ("distribution", "format")
"""Keys that select one of several section types (tags of tagged unions)."""


def describe(
    root: type[BaseModel], data: Mapping[str, Any], error: ValidationError
) -> tuple[str, str]:
    """Returns the key of the first error and a sentence that describes it.

    Args:
        root: The model that has refused the data.
        data: The data.
        error: The exception that the model has raised.
    """
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
        legal = _legal_keys(root, data, location[:-1])
        word = str(location[-1])
        hint = key_hint(word, legal, _all_keys(root))
        text = f"unknown key '{key}'{hint}; legal: {', '.join(legal)}"
    elif kind == "missing":
        text = f"the key '{key}' is missing"
    elif kind == "union_tag_invalid":
        word, legal = _tags(root, data, location)
        tag = str(first["ctx"]["tag"])
        text = f"{key}.{word} is '{tag}'{word_hint(tag, legal)}; legal: {', '.join(legal)}"
    elif kind == "union_tag_not_found":
        word, legal = _tags(root, data, location)
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
            str(location[-1]), kind, first["input"], _expected(root, data, location)
        ):
            reason = line
        text = f"{key} is {_short(first['input'])}{hint}; {reason}"
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return key, f"{text}{more}"


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


def _short(value: Any) -> str:
    """Returns a value in a short form for a message."""
    words = reprlib.Repr()
    words.maxstring = words.maxother = 60
    return words.repr(value)


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

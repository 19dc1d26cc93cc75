"""The reference of every key of a study file, from the pydantic models."""

import inspect
import types
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from generators.tables import default_of, limits_of, table, type_of
from melissa_gen.study import Study

__all__ = ["PATH", "Key", "Part", "pages", "parts"]

PATH = "reference/study.md"

_INTRODUCTION = """# Study file

Every key of a study file. This page is generated from the models in `melissa_gen/study/`, which also check a file.
An unknown key is an error. `melissa-gen schema` prints the same as a JSON Schema.

- A *duration* is a number of seconds, or text with a unit: `90 s`, `5 min`, `2 h`.
- A *size* is a number of bytes, or text with a unit: `500 MB`, `2 GiB`.
- A *unit* is the name of a physical unit: `K`, `m/s`, `kg/m^3`. `1` means dimensionless.
- Any key can be set on the command line: `--set training.batch_size=64`.
"""


class Key(NamedTuple):
    """One key of a study file."""

    name: str
    field: FieldInfo


class Part(NamedTuple):
    """The keys that stand together in one section; `choice` names the variant where there are several."""

    path: str
    choice: str
    model: type[BaseModel]
    keys: list[Key]


def parts() -> list[Part]:
    """Returns all sections of a study file, in the order of the models."""
    return list(_parts(Study, "", ""))


def _parts(model: type[BaseModel], path: str, choice: str) -> Iterator[Part]:
    keys = [Key(field.alias or name, field) for name, field in model.model_fields.items()]
    yield Part(path, choice, model, keys)
    for key in keys:
        where = f"{path}.{key.name}" if path else key.name
        inner, entries = _models(key.field.annotation)
        if entries:
            where += ".NAME"
        for one in inner:
            yield from _parts(one, where, _variant(one) if len(inner) > 1 else "")


def _models(annotation: Any, entries: bool = False) -> tuple[list[type[BaseModel]], bool]:
    """Returns the models that a key may hold, and whether it maps names to them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation], entries
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _models(arguments[0], entries)
    if get_origin(annotation) is dict:
        return _models(arguments[1], True)
    if get_origin(annotation) in (Union, types.UnionType):
        found = [_models(one, entries) for one in arguments]
        return [model for models, _ in found for model in models], any(e for _, e in found)
    return [], entries


def _variant(model: type[BaseModel]) -> str:
    """Returns the key and value that select this variant, such as "distribution: uniform"."""
    for name in ("distribution", "format"):
        if name in model.model_fields:
            return f"{name}: {get_args(model.model_fields[name].annotation)[0]}"
    return model.__name__


def pages() -> dict[str, str | bytes]:
    """Returns the page."""
    text = [_INTRODUCTION]
    for part in parts():
        title = f"`{part.path}`" if part.path else "Top level"
        if part.choice:
            title += f" with `{part.choice}`"
        level = "##" if part.path.count(".") == 0 else "###"
        rows = [
            (
                f"`{key.name}`",
                type_of(key.field.annotation, key.field.metadata),
                default_of(key.field),
                limits_of(key.field),
                key.field.description or "",
            )
            for key in part.keys
        ]
        text.append(f"{level} {title}\n\n{inspect.getdoc(part.model)}\n")
        text.append(table(("key", "type", "default", "legal", "description"), rows))
    return {PATH: "\n".join(text)}

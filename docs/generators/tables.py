"""Markdown tables, and the types and limits of pydantic fields in words."""

import types
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from melissa_gen.units import Duration, Size, Unit

__all__ = ["arguments_table", "default_of", "limits_of", "table", "type_of"]

_QUANTITIES = {
    get_args(Duration)[1]: "duration (s)",
    get_args(Size)[1]: "size (bytes)",
    get_args(Unit)[1]: "unit",
}
_NAMES = {str: "text", int: "integer", float: "number", bool: "true or false", type(None): "none"}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table; every cell becomes one line."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def type_of(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Returns the type of a key in words, such as "list of integer"."""
    for one in metadata:
        if not isinstance(one, BaseModel) and one in _quantities():
            return _QUANTITIES[one]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_of(arguments[0], arguments[1:])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_of(one) for one in arguments))
    if origin in (list, tuple, set):
        inner = [type_of(one) for one in arguments if one is not Ellipsis]
        return f"list of {inner[0]}" if inner else "list"
    if origin is dict:
        return f"mapping of {type_of(arguments[0])} to {type_of(arguments[1])}"
    if annotation is Any:
        return "any value"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return _NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _quantities() -> list[Any]:
    return list(_QUANTITIES)


def limits_of(field: FieldInfo) -> str:
    """Returns the legal range of a field, such as "≥ 1, ≤ 1000"; "" if there is none."""
    limits = []
    for one in _all_metadata(field):
        if isinstance(one, annotated_types.Gt):
            limits.append(f"> {one.gt}")
        elif isinstance(one, annotated_types.Ge):
            limits.append(f"≥ {one.ge}")
        elif isinstance(one, annotated_types.Lt):
            limits.append(f"< {_number(one.lt)}")
        elif isinstance(one, annotated_types.Le):
            limits.append(f"≤ {one.le}")
        elif isinstance(one, annotated_types.MultipleOf):
            limits.append(f"a multiple of {one.multiple_of}")
    return ", ".join(dict.fromkeys(limits))


def _number(value: Any) -> str:
    """Returns a limit; a large power of two is written as one."""
    power = int(value).bit_length() - 1
    return f"2^{power}" if power > 9 and value == 1 << power else str(value)


def _all_metadata(field: FieldInfo) -> list[Any]:
    found = list(field.metadata)
    stack = [field.annotation]
    while stack:
        annotation = stack.pop()
        if get_origin(annotation) is Annotated:
            for one in get_args(annotation)[1:]:
                found += one.metadata if isinstance(one, FieldInfo) else [one]
            stack.append(get_args(annotation)[0])
        elif get_origin(annotation) in (Union, types.UnionType):
            stack += get_args(annotation)
    return found


def default_of(field: FieldInfo) -> str:
    """Returns the default of a field as YAML would write it; "required" if there is none."""
    if field.default is PydanticUndefined and field.default_factory is None:
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def arguments_table(model: type[BaseModel]) -> str:
    """Returns the table of the arguments of a sampling method, or a sentence if it has none."""
    if not model.model_fields:
        return "This method has no arguments.\n"
    rows = [
        (
            f"`{field.alias or name}`",
            type_of(field.annotation, field.metadata),
            default_of(field),
            limits_of(field),
            field.description or "",
        )
        for name, field in model.model_fields.items()
    ]
    return table(("argument", "type", "default", "legal", "description"), rows)

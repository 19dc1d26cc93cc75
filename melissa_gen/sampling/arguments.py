"""The arguments of the samplers: the base of their models, and the check of what a user gives."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from melissa_gen.errors import StudyError, nearest

__all__ = ["Arguments", "parse_arguments"]


class Arguments(BaseModel):
    """Base of every method's arguments: frozen, and strict about unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


A = TypeVar("A", bound=Arguments)


def parse_arguments(model: type[A], method: str, given: Mapping[str, Any]) -> A:
    """Checks `given` against a method's model.

    Raises:
        StudyError: names the first wrong key as `sampler.arguments.KEY`, with what is legal.
    """
    legal = list(model.model_fields)
    for key in given:
        if key not in legal:
            takes = f"which takes {', '.join(legal)}" if legal else "which takes none"
            msg = (
                f"sampler.arguments.{key} is not an argument of the method '{method}', "
                f"{takes}{nearest(str(key), legal)}."
            )
            raise StudyError(msg)
    try:
        return model(**given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["sampler.arguments", *(str(part) for part in first["loc"])])
        found = first.get("input")
        hint = ""
        if first["type"] == "literal_error":
            options = str(first.get("ctx", {}).get("expected", "")).replace("'", "")
            hint = nearest(str(found), options.replace(" or ", ", ").split(", "))
        text = first["msg"]
        msg = f"{where} is {found!r}: {text[:1].lower()}{text[1:]}{hint}."
        raise StudyError(msg) from None

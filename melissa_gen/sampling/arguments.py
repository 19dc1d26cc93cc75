"""Base class of the samplers' argument models, and the check of the arguments that a user gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from melissa_gen.errors import StudyError, nearest
from melissa_gen.legal_values import legal_value, short_value

__all__ = ["Arguments", "StudyFacts", "parse_arguments"]


@dataclass(frozen=True)
class StudyFacts:
    """Facts of a study that default values of a method's arguments may depend on.

    Args:
        simulations: Number of simulations planned.
        reservoir_simulations: Capacity of the reservoirs of all ranks, in whole simulations.
        server_ranks: Number of server ranks.
        folder: Folder in which relative paths of the study start.
    """

    simulations: int
    reservoir_simulations: int
    server_ranks: int
    folder: Path


class Arguments(BaseModel):
    """Base class of every method's arguments; immutable, and unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def completed(cls, given: Mapping[str, Any], facts: StudyFacts) -> dict[str, Any]:
        """Returns the given arguments, completed by defaults that follow from the study.

        A method overrides this where a good default depends on the study, or where an argument is
        a path. The base class adds nothing.

        Args:
            given: The arguments of the study file, not checked yet.
            facts: Facts of the study.
        """
        return dict(given)


A = TypeVar("A", bound=Arguments)


def parse_arguments(model: type[A], method: str, given: Mapping[str, Any]) -> A:
    """Creates the argument model of a method from the arguments given by a user.

    Args:
        model: Class of the method's arguments.
        method: Name of the method, for messages.
        given: Arguments by name.

    Raises:
        StudyError: A key is unknown or a value is illegal. The message names the first such key as
            `sampler.arguments.KEY`, and the legal values.
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
        raise StudyError(_sentence(given, error)) from None


def _sentence(given: Mapping[str, Any], error: ValidationError) -> str:
    """Returns the sentence about the first illegal value. A value of a union has an error for each of its types."""
    details = error.errors(include_url=False)
    first, keys = details[0], _keys(given, details[0]["loc"])
    where = ".".join(["sampler.arguments", *map(str, keys)])
    if first["type"] == "value_error":
        reason = first["msg"].removeprefix("Value error, ")
        return f"{where} is {short_value(first['input'])}: {reason}."
    same = [one for one in details if _keys(given, one["loc"]) == keys]
    hint = ""
    if first["type"] == "literal_error":
        hint = nearest(str(first["input"]), str(first["ctx"]["expected"]).split("'")[1::2])
    legal = "; ".join(dict.fromkeys(legal_value(one) for one in same))
    return f"{where} is {short_value(first['input'])}; {legal}{hint}."


def _keys(given: Any, location: Sequence[Any]) -> list[Any]:
    """Returns the keys of an error's location, without the types that pydantic inserts for unions."""
    keys: list[Any] = []
    node = given
    for part in location:
        is_index = isinstance(node, list | tuple) and isinstance(part, int) and part < len(node)
        if is_index or (isinstance(node, Mapping) and part in node):
            keys.append(part)
            node = node[part]
    return keys

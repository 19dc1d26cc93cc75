"""Base class of the samplers' argument models, and the check of the arguments that a user gives."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from melissa_gen.errors import StudyError, nearest

__all__ = ["Arguments", "StudyFacts", "parse_arguments"]


@dataclass(frozen=True)
class StudyFacts:
    """Facts of a study that default values of a method's arguments may depend on.

    Args:
        simulations: Number of simulations planned.
        reservoir_simulations: Capacity of the reservoirs of all ranks, in whole simulations.
        folder: Folder in which relative paths of the study start.
    """

    simulations: int
    reservoir_simulations: int
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

"""The distributions that a parameter of a study may have, and their creation from a mapping."""

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import Field, TypeAdapter, ValidationError

from melissa_gen.distributions.continuous import LogUniform, Normal, Uniform
from melissa_gen.distributions.discrete import Categorical, Fixed, Integer
from melissa_gen.distributions.distribution import Distribution
from melissa_gen.errors import StudyError, nearest
from melissa_gen.legal_values import legal_value, short_value

__all__ = ["Parameter", "parse_parameter"]

Parameter = Annotated[
    Uniform | LogUniform | Normal | Integer | Categorical | Fixed,
    Field(discriminator="distribution"),
]

_ADAPTER: TypeAdapter[Distribution] = TypeAdapter(Parameter)
_KINDS: dict[str, type[Distribution]] = {
    get_args(kind.model_fields["distribution"].annotation)[0]: kind
    for kind in (Uniform, LogUniform, Normal, Integer, Categorical, Fixed)
}


def parse_parameter(name: str, given: Mapping[str, Any]) -> Distribution:
    """Creates the distribution of a parameter.

    Args:
        name: Name of the parameter, for messages.
        given: The kind of the distribution as `distribution`, "uniform" if left out, and the
            fields of that kind.

    Raises:
        StudyError: The kind is unknown, or a field is missing, unknown or not legal.

    Example:
        >>> parse_parameter("nu", {"low": 0.0, "high": 2.0}).typical_range
        (0.0, 2.0)
    """
    kind = str(given.get("distribution", "uniform"))
    if kind not in _KINDS:
        msg = (
            f"parameters.{name}.distribution is '{kind}', legal are {', '.join(_KINDS)}"
            f"{nearest(kind, _KINDS)}."
        )
        raise StudyError(msg)
    try:
        return _ADAPTER.validate_python({**given, "distribution": kind})
    except ValidationError as error:
        msg = _sentence(name, kind, error)
        raise StudyError(msg) from None


def _sentence(name: str, kind: str, error: ValidationError) -> str:
    """Returns the sentence about the first mistake; a misspelled key goes before a missing one."""
    details = error.errors(include_url=False)
    first = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
    # The location begins with the kind, by which pydantic names the member of the union.
    key = ".".join(["parameters", name, *(str(part) for part in first["loc"][1:])])
    legal = [field for field in _KINDS[kind].model_fields if field != "distribution"]
    if first["type"] == "extra_forbidden":
        hint = nearest(str(first["loc"][-1]), legal)
        return f"{key} is not a key of a {kind} distribution, which takes {', '.join(legal)}{hint}."
    if first["type"] == "missing":
        return f"{key} is missing, a {kind} distribution needs it."
    if first["type"] == "value_error":
        found = ":" if isinstance(first["input"], dict) else f" {short_value(first['input'])}"
        return f"{key}{found} {first['msg'].removeprefix('Value error, ')}."
    return f"{key} is {short_value(first['input'])}; {legal_value(first)}."

"""The distributions that a parameter of a study may have."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from melissa_gen.study.base_section import Section
from melissa_gen.study.units import Unit

__all__ = ["Parameter"]


class Uniform(Section):
    """Every value between the bounds is equally likely."""

    distribution: Literal["uniform"] = "uniform"
    """Selects this distribution, which is the default."""
    low: float
    """Lower bound, in the parameter's unit."""
    high: float
    """Upper bound, in the parameter's unit."""
    unit: Unit = "1"
    """Unit of the parameter."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.high:
            msg = f"low {self.low:g} is above high {self.high:g}; low must not exceed high"
            raise ValueError(msg)
        return self


class LogUniform(Section):
    """The logarithm is uniform between the bounds, which must be positive."""

    distribution: Literal["log_uniform"]
    """Selects this distribution."""
    low: float = Field(gt=0)
    """Lower bound, above 0, in the parameter's unit."""
    high: float = Field(gt=0)
    """Upper bound, in the parameter's unit."""
    unit: Unit = "1"
    """Unit of the parameter."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.high:
            msg = f"low {self.low:g} is above high {self.high:g}; low must not exceed high"
            raise ValueError(msg)
        return self


class Normal(Section):
    """Normal distribution; with `low` and `high` it is truncated to them."""

    distribution: Literal["normal"]
    """Selects this distribution."""
    mean: float
    """Mean before truncation, in the parameter's unit."""
    std: float = Field(gt=0)
    """Standard deviation before truncation, in the parameter's unit."""
    low: float | None = None
    """Lower bound of the truncation; needs `high`."""
    high: float | None = None
    """Upper bound of the truncation; needs `low`."""
    unit: Unit = "1"
    """Unit of the parameter."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if (self.low is None) != (self.high is None):
            msg = "only one of low and high is given; a truncated normal needs both"
            raise ValueError(msg)
        if self.low is not None and self.high is not None and not self.low < self.high:
            msg = f"low {self.low:g} is not below high {self.high:g}"
            raise ValueError(msg)
        return self


class Integer(Section):
    """Whole numbers between the bounds, both included, all equally likely."""

    distribution: Literal["integer"]
    """Selects this distribution."""
    low: int
    """Smallest value."""
    high: int
    """Largest value."""
    unit: Unit = "1"
    """Unit of the parameter."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.high:
            msg = f"low {self.low} is above high {self.high}; low must not exceed high"
            raise ValueError(msg)
        return self


class Categorical(Section):
    """One of some numbers, in an order of your own: neighbors should behave alike."""

    distribution: Literal["categorical"]
    """Selects this distribution."""
    values: list[float] = Field(min_length=1, max_length=1000)
    """The values that the parameter can have."""
    probabilities: list[Annotated[float, Field(ge=0)]] | None = None
    """One for each value, in any scale; none makes all values equally likely."""
    unit: Unit = "1"
    """Unit of the parameter."""

    @model_validator(mode="after")
    def _matched(self) -> Self:
        if len(set(self.values)) != len(self.values):
            msg = f"values {self.values} has a value twice; each may stand there once"
            raise ValueError(msg)
        if self.probabilities is not None and (
            len(self.probabilities) != len(self.values) or sum(self.probabilities) <= 0
        ):
            msg = (
                f"probabilities {self.probabilities} do not fit the {len(self.values)} values; "
                "one for each is needed, and one of them above 0"
            )
            raise ValueError(msg)
        return self


class Fixed(Section):
    """The parameter always has this value."""

    distribution: Literal["fixed"]
    """Selects this distribution."""
    value: float
    """The value."""
    unit: Unit = "1"
    """Unit of the parameter."""


Parameter = Annotated[
    Uniform | LogUniform | Normal | Integer | Categorical | Fixed,
    Field(discriminator="distribution"),
]

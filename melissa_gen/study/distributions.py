"""The distributions that a parameter of a study may have."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from melissa_gen.study.section import Section
from melissa_gen.study.units import Unit

__all__ = ["Parameter"]


class Uniform(Section):
    """Every value between the bounds is equally likely."""

    distribution: Literal["uniform"] = "uniform"
    low: float
    """Lower bound, in the parameter's unit."""
    high: float
    """Upper bound, in the parameter's unit."""
    unit: Unit = "1"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.high:
            msg = f"low {self.low:g} is above high {self.high:g}; low must not exceed high"
            raise ValueError(msg)
        return self


class LogUniform(Section):
    """The logarithm is uniform between the bounds, which must be positive."""

    distribution: Literal["log_uniform"]
    low: float = Field(gt=0)
    high: float = Field(gt=0)
    unit: Unit = "1"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.high:
            msg = f"low {self.low:g} is above high {self.high:g}; low must not exceed high"
            raise ValueError(msg)
        return self


class Normal(Section):
    """Normal distribution; with `low` and `high` it is truncated to them."""

    distribution: Literal["normal"]
    mean: float
    std: float = Field(gt=0)
    low: float | None = None
    high: float | None = None
    unit: Unit = "1"

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
    low: int
    high: int
    unit: Unit = "1"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.high:
            msg = f"low {self.low} is above high {self.high}; low must not exceed high"
            raise ValueError(msg)
        return self


class Categorical(Section):
    """One of some numbers, in an order of your own: neighbors should behave alike."""

    distribution: Literal["categorical"]
    values: list[float] = Field(min_length=1, max_length=1000)
    probabilities: list[Annotated[float, Field(ge=0)]] | None = None
    """One for each value, in any scale; none makes all values equally likely."""
    unit: Unit = "1"

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
    value: float
    unit: Unit = "1"


Parameter = Annotated[
    Uniform | LogUniform | Normal | Integer | Categorical | Fixed,
    Field(discriminator="distribution"),
]

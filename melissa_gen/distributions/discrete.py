"""Discrete distributions; their densities are probabilities."""

from math import log
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from melissa_gen.distributions.distribution import Array, Distribution
from melissa_gen.units import Unit

__all__ = ["Categorical", "Fixed", "Integer"]

_DECADES = 100.0
"""Ratio of values from which on they are spread over decades."""


def _as_written(value: Any, validate: ValidatorFunctionWrapHandler) -> float:
    """Checks a number, and keeps it an integer if it is written as one."""
    try:
        number: float = validate(value)
    except ValidationError:
        if not isinstance(value, str):
            raise
        msg = "is not a number; write a number for each category, such as 0 and 1, and let the solver give it a name"
        raise ValueError(msg) from None
    return value if isinstance(value, int) else number


class Integer(Distribution):
    """Integers between the bounds, both included, all equally likely."""

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

    @property
    def whole(self) -> bool:
        """Always true."""
        return True

    @property
    def constant(self) -> float | None:
        """The bound, if both bounds are equal."""
        return float(self.low) if self.low == self.high else None

    @property
    def typical_range(self) -> tuple[float, float]:
        """The bounds."""
        return self.low, self.high

    def cdf(self, x: Array) -> Array:
        """Returns the middle of the interval of each number."""
        return np.asarray(np.clip((np.round(x) - self.low + 0.5) / self._count, 0.0, 1.0))

    def quantile(self, u: Array) -> Array:
        """Returns the number to whose interval each coordinate belongs."""
        return np.asarray(np.clip(self.low + np.floor(u * self._count), self.low, self.high))

    def slope(self, u: Array) -> Array:
        """Returns the number of values."""
        return np.full(np.shape(u), self._count)

    def log_density(self, x: Array) -> Array:
        """Returns the log of the probability of one number."""
        return np.where(self.contains(x), -log(self._count), -np.inf)

    def contains(self, x: Array) -> NDArray[np.bool_]:
        """Returns whether each value is a whole number between the bounds."""
        return np.asarray((x >= self.low) & (x <= self.high) & (np.round(x) == x))

    @property
    def _count(self) -> float:
        return self.high - self.low + 1.0


class Categorical(Distribution):
    """One of the given numbers. Neighbors in the list should have similar effects: samplers see an ordered axis."""

    distribution: Literal["categorical"]
    """Selects this distribution."""
    values: list[Annotated[float, WrapValidator(_as_written)]] = Field(
        min_length=1, max_length=1000
    )
    """The values that the parameter can have. If none of them is written with a decimal point, solvers get integers."""
    probabilities: list[Annotated[float, Field(ge=0)]] | None = None
    """Probability of each value, up to a common factor. Without it, all values are equally likely."""
    unit: Unit = "1"
    """Unit of the parameter."""

    @model_validator(mode="after")
    def _matched(self) -> Self:
        if len(set(self.values)) != len(self.values):
            msg = f"values {self.values} has a value twice; each value may occur only once"
            raise ValueError(msg)
        if self.probabilities is not None and (
            len(self.probabilities) != len(self.values) or sum(self.probabilities) <= 0
        ):
            msg = (
                f"probabilities {self.probabilities} do not fit the {len(self.values)} values; "
                "one for each value is needed, and at least one of them must be above 0"
            )
            raise ValueError(msg)
        return self

    @property
    def whole(self) -> bool:
        """Whether no value is written with a decimal point in the study."""
        return all(isinstance(value, int) for value in self.values)

    @property
    def constant(self) -> float | None:
        """The value, if only one has a probability above 0."""
        values, _ = self._possible()
        return float(values[0]) if len(values) == 1 else None

    @property
    def typical_range(self) -> tuple[float, float]:
        """The smallest and the largest value."""
        return min(self.values), max(self.values)

    @property
    def spread_over_decades(self) -> bool:
        """Whether all values are positive, and the largest is at least 100 times the smallest."""
        return min(self.values) > 0 and max(self.values) >= _DECADES * min(self.values)

    def cdf(self, x: Array) -> Array:
        """Returns the middle of the interval of the nearest value."""
        values, edges = self._possible()
        return np.asarray(0.5 * (edges[:-1] + edges[1:])[_nearest(x, values)])

    def quantile(self, u: Array) -> Array:
        """Returns the value to whose interval each coordinate belongs."""
        values, edges = self._possible()
        return np.asarray(values[np.searchsorted(edges[1:-1], u, side="right")])

    def slope(self, u: Array) -> Array:
        """Returns 0: categories have no distance from each other."""
        return np.zeros(np.shape(u))

    def log_density(self, x: Array) -> Array:
        """Returns the log of the probability of each value."""
        values, edges = self._possible()
        return np.where(self.contains(x), np.log(np.diff(edges)[_nearest(x, values)]), -np.inf)

    def contains(self, x: Array) -> NDArray[np.bool_]:
        """Returns whether each value is one of those with a probability above 0, up to rounding."""
        values, _ = self._possible()
        return _close(x, values[_nearest(x, values)])

    def _possible(self) -> tuple[Array, Array]:
        """Returns the m values with a probability above 0, and the m + 1 edges of their intervals."""
        weights = self.probabilities or [1.0] * len(self.values)
        values = [v for v, weight in zip(self.values, weights, strict=True) if weight > 0.0]
        total = np.cumsum([weight for weight in weights if weight > 0.0])
        return np.array(values, np.float64), np.concatenate([[0.0], total / total[-1]])


class Fixed(Distribution):
    """The parameter always has this value."""

    distribution: Literal["fixed"]
    """Selects this distribution."""
    value: float
    """The value."""
    unit: Unit = "1"
    """Unit of the parameter."""

    @property
    def constant(self) -> float | None:
        """The value."""
        return self.value

    @property
    def typical_range(self) -> tuple[float, float]:
        """The value, twice."""
        return self.value, self.value

    def cdf(self, x: Array) -> Array:
        """Returns 0.5, the middle of the interval of the only value."""
        return np.full(np.shape(x), 0.5)

    def quantile(self, u: Array) -> Array:
        """Returns the value."""
        return np.full(np.shape(u), float(self.value))

    def slope(self, u: Array) -> Array:
        """Returns 0."""
        return np.zeros(np.shape(u))

    def log_density(self, x: Array) -> Array:
        """Returns 0 at the value."""
        return np.where(self.contains(x), 0.0, -np.inf)

    def contains(self, x: Array) -> NDArray[np.bool_]:
        """Returns whether each value equals the only one, up to rounding."""
        return _close(x, np.asarray(self.value))


def _nearest(x: Array, values: Array) -> NDArray[np.int64]:
    """Returns the index of the nearest of `values` (m,) for each element of x."""
    distance = np.abs(np.asarray(x, dtype=np.float64)[..., None] - values)
    return np.asarray(distance.argmin(axis=-1))


def _close(x: Array, values: Array) -> NDArray[np.bool_]:
    """Returns whether x equals `values` element by element, up to rounding."""
    close: NDArray[np.bool_] = np.isclose(x, values, rtol=1e-6, atol=1e-12)
    return close

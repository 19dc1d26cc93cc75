"""Continuous distributions."""

from math import log
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from melissa_gen.distributions.distribution import Array, Distribution
from melissa_gen.units import Unit

__all__ = ["EDGE", "LogUniform", "Normal", "Uniform"]

EDGE = 2.0**-53
"""Distance from 0 and 1 to which coordinates are clipped, so that quantiles of an unbounded parameter are finite."""


class Uniform(Distribution):
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

    @property
    def constant(self) -> float | None:
        """The bound, if both bounds are equal."""
        return self.low if self.low == self.high else None

    @property
    def typical_range(self) -> tuple[float, float]:
        """The bounds."""
        return self.low, self.high

    def cdf(self, x: Array) -> Array:
        """Returns (x - low) / (high - low), within [0, 1]."""
        return np.clip((x - self.low) / (self.high - self.low), 0.0, 1.0)

    def quantile(self, u: Array) -> Array:
        """Returns low + u (high - low)."""
        return np.clip(self.low + u * (self.high - self.low), self.low, self.high)

    def slope(self, u: Array) -> Array:
        """Returns high - low."""
        return np.full(np.shape(u), self.high - self.low)

    def log_density(self, x: Array) -> Array:
        """Returns -log(high - low) inside the bounds."""
        return np.where(self.contains(x), -log(self.high - self.low), -np.inf)

    def contains(self, x: Array) -> NDArray[np.bool_]:
        """Returns whether low <= x <= high."""
        return np.asarray((x >= self.low) & (x <= self.high))


class LogUniform(Distribution):
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

    @property
    def constant(self) -> float | None:
        """The bound, if both bounds are equal."""
        return self.low if self.low == self.high else None

    @property
    def typical_range(self) -> tuple[float, float]:
        """The bounds."""
        return self.low, self.high

    @property
    def spread_over_decades(self) -> bool:
        """Always true: equal ratios are equally likely."""
        return True

    def cdf(self, x: Array) -> Array:
        """Returns log(x / low) / log(high / low), within [0, 1]."""
        inside = np.clip(x, self.low, self.high)
        return np.clip(np.log(inside / self.low) / log(self.high / self.low), 0.0, 1.0)

    def quantile(self, u: Array) -> Array:
        """Returns low (high / low)^u."""
        return np.clip(self.low * (self.high / self.low) ** u, self.low, self.high)

    def slope(self, u: Array) -> Array:
        """Returns the value times log(high / low)."""
        return np.asarray(self.quantile(u) * log(self.high / self.low))

    def log_density(self, x: Array) -> Array:
        """Returns -log(x) - log(log(high / low)) inside the bounds."""
        inside = np.clip(x, self.low, self.high)
        density = -np.log(inside) - log(log(self.high / self.low))
        return np.where(self.contains(x), density, -np.inf)

    def contains(self, x: Array) -> NDArray[np.bool_]:
        """Returns whether low <= x <= high."""
        return np.asarray((x >= self.low) & (x <= self.high))


class Normal(Distribution):
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

    @property
    def typical_range(self) -> tuple[float, float]:
        """The bounds, or mean ± 3 std without bounds."""
        if self.low is not None and self.high is not None:
            return self.low, self.high
        return self.mean - 3 * self.std, self.mean + 3 * self.std

    @property
    def smallest(self) -> float:
        """The lower bound, or minus infinity."""
        return -np.inf if self.low is None else self.low

    def cdf(self, x: Array) -> Array:
        """Returns the cumulative distribution function."""
        from scipy.special import ndtr

        truncated = self._truncated()
        if truncated is not None:
            return np.asarray(truncated.cdf(x))
        return np.asarray(ndtr((x - self.mean) / self.std))

    def quantile(self, u: Array) -> Array:
        """Returns the quantile function, finite also at 0 and 1."""
        from scipy.special import ndtri

        truncated = self._truncated()
        if truncated is not None:
            return np.asarray(np.clip(truncated.ppf(u), self.low, self.high))
        return np.asarray(self.mean + self.std * ndtri(np.clip(u, EDGE, 1.0 - EDGE)))

    def slope(self, u: Array) -> Array:
        """Returns the inverse of the density at the quantile."""
        return np.asarray(np.exp(-self.log_density(self.quantile(u))))

    def log_density(self, x: Array) -> Array:
        """Returns the log density."""
        truncated = self._truncated()
        if truncated is not None:
            return np.asarray(truncated.logpdf(x))
        z = (x - self.mean) / self.std
        return np.asarray(-0.5 * z * z - log(self.std) - 0.5 * log(2.0 * np.pi))

    def contains(self, x: Array) -> NDArray[np.bool_]:
        """Returns whether each value is between the bounds, or finite without bounds."""
        if self.low is not None and self.high is not None:
            return np.asarray((x >= self.low) & (x <= self.high))
        return np.isfinite(x)

    def _truncated(self) -> Any:
        """Returns scipy's distribution between the bounds, or None without bounds."""
        if self.low is None or self.high is None:
            return None
        # Importing scipy.stats takes 50 MB, so it is imported only where it is used.
        from scipy import stats

        bounds = (self.low - self.mean) / self.std, (self.high - self.mean) / self.std
        return stats.truncnorm(*bounds, loc=self.mean, scale=self.std)

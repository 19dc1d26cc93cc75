"""The distribution of one parameter: its CDF, the inverse and its log density.

A new kind needs a class here with the methods of `Marginal`, and a line in `DISTRIBUTIONS`; nothing
else knows the kinds apart. A discrete kind gives each value an interval of the unit axis as wide as
its probability, so that samplers see a continuous axis and each λ comes back as a legal value.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite, log
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from melissa_gen.errors import StudyError, nearest

__all__ = [
    "DISTRIBUTIONS",
    "Categorical",
    "Fixed",
    "Integer",
    "LogUniform",
    "Marginal",
    "Normal",
    "TruncatedNormal",
    "Uniform",
    "marginal_from_mapping",
]

Array = NDArray[np.float64]

# An unbounded parameter stays finite: the unit interval is closed at one rounding step.
EDGE = 2.0**-53


class Marginal(Protocol):
    """One parameter's distribution; every method works on arrays of any shape."""

    @property
    def free(self) -> bool:
        """Whether the parameter varies at all; a pinned one has no axis in the unit cube."""

    def cdf(self, x: Array) -> Array:
        """Physical value to unit coordinate in [0, 1]."""

    def ppf(self, u: Array) -> Array:
        """Unit coordinate to physical value, always inside the support."""

    def slope(self, u: Array) -> Array:
        """Derivative of `ppf`; of whole numbers that of the straight line, of categories 0."""

    def log_density(self, x: Array) -> Array:
        """Log density in 1 / physical unit; minus infinity outside the support."""

    def contains(self, x: Array) -> NDArray[np.bool_]:
        """Whether a value lies in the support."""


@dataclass(frozen=True)
class Fixed:
    """A parameter that never varies: density 1 (log 0) at its value, with no axis of its own."""

    value: float
    free: ClassVar[bool] = False

    def cdf(self, x: Array) -> Array:
        """The middle of an interval without width."""
        return np.full(np.shape(x), 0.5)

    def ppf(self, u: Array) -> Array:
        """The value, whatever the coordinate."""
        return np.full(np.shape(u), float(self.value))

    def slope(self, u: Array) -> Array:
        """Zero."""
        return np.zeros(np.shape(u))

    def log_density(self, x: Array) -> Array:
        """Zero at the value, minus infinity elsewhere."""
        return np.where(self.contains(x), 0.0, -np.inf)

    def contains(self, x: Array) -> NDArray[np.bool_]:
        """Equality up to rounding."""
        return np.isclose(x, self.value, rtol=1e-6, atol=1e-12)


@dataclass(frozen=True)
class Uniform:
    """Uniform on [low, high]."""

    low: float
    high: float
    free: ClassVar[bool] = True

    def cdf(self, x: Array) -> Array:
        """Linear between the bounds."""
        return np.clip((x - self.low) / (self.high - self.low), 0.0, 1.0)

    def ppf(self, u: Array) -> Array:
        """Linear between the bounds."""
        return np.clip(self.low + u * (self.high - self.low), self.low, self.high)

    def slope(self, u: Array) -> Array:
        """The range."""
        return np.full(np.shape(u), self.high - self.low)

    def log_density(self, x: Array) -> Array:
        """Constant inside the bounds."""
        return np.where(self.contains(x), -log(self.high - self.low), -np.inf)

    def contains(self, x: Array) -> NDArray[np.bool_]:
        """Between the bounds, both included."""
        return np.asarray((x >= self.low) & (x <= self.high))


@dataclass(frozen=True)
class LogUniform:
    """Uniform in the logarithm on [low, high], low > 0."""

    low: float
    high: float
    free: ClassVar[bool] = True

    def cdf(self, x: Array) -> Array:
        """Linear in log x."""
        inside = np.clip(x, self.low, self.high)
        return np.clip(np.log(inside / self.low) / log(self.high / self.low), 0.0, 1.0)

    def ppf(self, u: Array) -> Array:
        """Geometric between the bounds."""
        return np.clip(self.low * (self.high / self.low) ** u, self.low, self.high)

    def slope(self, u: Array) -> Array:
        """Proportional to the value."""
        return np.asarray(self.ppf(u) * log(self.high / self.low))

    def log_density(self, x: Array) -> Array:
        """Proportional to 1 / x."""
        inside = np.clip(x, self.low, self.high)
        density = -np.log(inside) - log(log(self.high / self.low))
        return np.where(self.contains(x), density, -np.inf)

    def contains(self, x: Array) -> NDArray[np.bool_]:
        """Between the bounds, both included."""
        return np.asarray((x >= self.low) & (x <= self.high))


@dataclass(frozen=True)
class Normal:
    """Normal with the given mean and standard deviation, unbounded."""

    mean: float
    std: float
    free: ClassVar[bool] = True

    def cdf(self, x: Array) -> Array:
        """The normal CDF."""
        return np.asarray(ndtr((x - self.mean) / self.std))

    def ppf(self, u: Array) -> Array:
        """The normal quantile, finite also at 0 and 1."""
        return np.asarray(self.mean + self.std * ndtri(np.clip(u, EDGE, 1.0 - EDGE)))

    def slope(self, u: Array) -> Array:
        """One over the density."""
        return np.asarray(np.exp(-self.log_density(self.ppf(u))))

    def log_density(self, x: Array) -> Array:
        """The normal log density."""
        z = (x - self.mean) / self.std
        return np.asarray(-0.5 * z * z - log(self.std) - 0.5 * log(2.0 * np.pi))

    def contains(self, x: Array) -> NDArray[np.bool_]:
        """Every finite value."""
        return np.isfinite(x)


@dataclass(frozen=True)
class TruncatedNormal:
    """Normal with `mean` and `std` (those before truncation), restricted to [low, high]."""

    mean: float
    std: float
    low: float
    high: float
    free: ClassVar[bool] = True

    @property
    def _frozen(self) -> Any:
        bounds = (self.low - self.mean) / self.std, (self.high - self.mean) / self.std
        from scipy import stats  # scipy.stats takes 50 MB: only where it is used

        return stats.truncnorm(*bounds, loc=self.mean, scale=self.std)

    def cdf(self, x: Array) -> Array:
        """The truncated CDF."""
        return np.asarray(self._frozen.cdf(x))

    def ppf(self, u: Array) -> Array:
        """The truncated quantile."""
        quantile: Array = self._frozen.ppf(u)
        return np.clip(quantile, self.low, self.high)

    def slope(self, u: Array) -> Array:
        """One over the density."""
        return np.asarray(np.exp(-self.log_density(self.ppf(u))))

    def log_density(self, x: Array) -> Array:
        """The truncated log density."""
        return np.asarray(self._frozen.logpdf(x))

    def contains(self, x: Array) -> NDArray[np.bool_]:
        """Between the bounds, both included."""
        return np.asarray((x >= self.low) & (x <= self.high))


@dataclass(frozen=True)
class Integer:
    """Whole numbers from low to high, both included, all equally likely; densities are masses."""

    low: float
    high: float
    free: ClassVar[bool] = True

    @property
    def _count(self) -> float:
        return self.high - self.low + 1.0

    def cdf(self, x: Array) -> Array:
        """The middle of the number's own interval."""
        return np.clip((np.round(x) - self.low + 0.5) / self._count, 0.0, 1.0)

    def ppf(self, u: Array) -> Array:
        """The number whose interval it is."""
        return np.clip(self.low + np.floor(u * self._count), self.low, self.high)

    def slope(self, u: Array) -> Array:
        """How many numbers there are."""
        return np.full(np.shape(u), self._count)

    def log_density(self, x: Array) -> Array:
        """Log of the mass of one number."""
        return np.where(self.contains(x), -log(self._count), -np.inf)

    def contains(self, x: Array) -> NDArray[np.bool_]:
        """Whole numbers between the bounds."""
        return np.asarray((x >= self.low) & (x <= self.high) & (np.round(x) == x))


@dataclass(frozen=True)
class Categorical:
    """One of some values, in the order given; densities are masses."""

    values: tuple[float, ...]
    probabilities: tuple[float, ...]
    free: ClassVar[bool] = True

    @property
    def _edges(self) -> Array:
        total = np.cumsum(self.probabilities)
        return np.concatenate([[0.0], total / total[-1]])

    def _index(self, x: Array) -> NDArray[np.int64]:
        distance = np.abs(np.asarray(x, dtype=np.float64)[..., None] - np.array(self.values))
        return np.asarray(distance.argmin(axis=-1))

    def cdf(self, x: Array) -> Array:
        """The middle of the nearest value's own interval."""
        edges = self._edges
        return np.asarray(0.5 * (edges[:-1] + edges[1:])[self._index(x)])

    def ppf(self, u: Array) -> Array:
        """The value whose interval it is."""
        index = np.searchsorted(self._edges[1:-1], u, side="right")
        return np.asarray(np.array(self.values)[index])

    def slope(self, u: Array) -> Array:
        """Zero: a category has no neighbor at a known distance."""
        return np.zeros(np.shape(u))

    def log_density(self, x: Array) -> Array:
        """Log of the value's probability."""
        mass = np.diff(self._edges)[self._index(x)]
        return np.where(self.contains(x), np.log(mass), -np.inf)

    def contains(self, x: Array) -> NDArray[np.bool_]:
        """Equality with one of the values, up to rounding."""
        near: NDArray[np.bool_] = np.isclose(
            x, np.array(self.values)[self._index(x)], rtol=1e-6, atol=1e-12
        )
        return near


DISTRIBUTIONS: dict[str, type[Any]] = {
    "uniform": Uniform,
    "log_uniform": LogUniform,
    "normal": Normal,
    "truncated_normal": TruncatedNormal,
    "integer": Integer,
    "categorical": Categorical,
    "fixed": Fixed,
}


def marginal_from_mapping(name: str, given: Mapping[str, Any]) -> Marginal:
    """Builds the marginal of parameter `name`; a range without width becomes `Fixed`.

    Args:
        name: the parameter, for messages.
        given: `distribution` (default `uniform`) and that distribution's own numbers; a normal with
            both `low` and `high` is a truncated one.
            Other keys (a unit, a description) belong to the study file and are `None` or text.

    Raises:
        StudyError: an unknown distribution, or a number that is missing, unknown or illegal.
    """
    kind = given.get("distribution", "uniform")
    if kind not in DISTRIBUTIONS:
        msg = (
            f"parameters.{name}.distribution is '{kind}', legal are {', '.join(DISTRIBUTIONS)}"
            f"{nearest(str(kind), DISTRIBUTIONS)}."
        )
        raise StudyError(msg)
    if kind == "normal" and given.get("low") is not None and given.get("high") is not None:
        kind = "truncated_normal"
    if kind == "categorical":
        return _categorical(name, given)
    wanted = [field.name for field in fields(DISTRIBUTIONS[kind])]
    numbers = {key: _number(name, kind, key, given.get(key)) for key in wanted}
    for key, value in given.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if key not in wanted and is_number:
            msg = (
                f"parameters.{name}.{key} is not a number of a {kind} distribution, "
                f"which takes {', '.join(wanted)}{nearest(key, wanted)}."
            )
            raise StudyError(msg)
    return _checked(name, kind, numbers)


def _categorical(name: str, given: Mapping[str, Any]) -> Marginal:
    lists: dict[str, tuple[float, ...]] = {}
    for key in ("values", "probabilities"):
        value = given.get(key)
        if key == "probabilities" and value is None:
            value = [1.0] * len(lists["values"])
        if not isinstance(value, list | tuple) or not value:
            msg = f"parameters.{name}.{key} is {value!r}, a list of numbers is needed."
            raise StudyError(msg)
        lists[key] = tuple(
            _number(name, "categorical", f"{key}.{i}", v) for i, v in enumerate(value)
        )
    values, chances = lists["values"], lists["probabilities"]
    if len(chances) != len(values) or min(chances) < 0.0 or sum(chances) <= 0.0:
        msg = (
            f"parameters.{name}.probabilities is {list(chances)}, {len(values)} numbers of at least 0 "
            "are needed, one of them above 0."
        )
        raise StudyError(msg)
    if len(set(values)) != len(values):
        msg = f"parameters.{name}.values is {list(values)}, every value may stand there only once."
        raise StudyError(msg)
    possible = [(v, p) for v, p in zip(values, chances, strict=True) if p > 0.0]
    if len(possible) == 1:
        return Fixed(possible[0][0])
    return Categorical(tuple(v for v, _ in possible), tuple(p for _, p in possible))


def _number(name: str, kind: str, key: str, value: Any) -> float:
    if value is None:
        msg = f"parameters.{name}.{key} is missing, a {kind} distribution needs it."
        raise StudyError(msg)
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        msg = f"parameters.{name}.{key} is {value!r}, a number is needed."
        raise StudyError(msg)
    if not isfinite(value):
        msg = f"parameters.{name}.{key} is {value}, a finite number is needed."
        raise StudyError(msg)
    return float(value)


def _checked(name: str, kind: str, numbers: dict[str, float]) -> Marginal:
    low, high = numbers.get("low"), numbers.get("high")
    if low is not None and high is not None:
        if low > high:
            msg = f"parameters.{name}.low is {low:g}, above parameters.{name}.high, {high:g}."
            raise StudyError(msg)
        if kind == "log_uniform" and low <= 0.0:
            msg = f"parameters.{name}.low is {low:g}, a log_uniform distribution needs low > 0."
            raise StudyError(msg)
        if kind == "integer" and (low != round(low) or high != round(high)):
            msg = f"parameters.{name} goes from {low:g} to {high:g}, whole numbers are needed."
            raise StudyError(msg)
        if low == high:
            return Fixed(low)
    if "std" in numbers:
        if numbers["std"] < 0.0:
            msg = f"parameters.{name}.std is {numbers['std']:g}, a value of at least 0 is needed."
            raise StudyError(msg)
        if numbers["std"] == 0.0:
            mean = numbers["mean"]
            return Fixed(mean if low is None or high is None else min(max(mean, low), high))
    marginal: Marginal = DISTRIBUTIONS[kind](**numbers)
    return marginal

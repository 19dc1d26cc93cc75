"""What an acquisition a(λ) has to offer, and the density that it aims at.

The target is π ∝ p a^β. In the unit cube p is 1, so π is an *exponential tilt* of the uniform
density by log a, and all that is missing is one number, its normalisation.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from melissa_gen.sampling.acquisition.records import Table
from melissa_gen.sampling.base import State

__all__ = ["Candidates", "LearnedAcquisition", "LogAcquisition", "Tilt", "matching_exponent"]

Array = NDArray[np.float64]


class LogAcquisition(Protocol):
    """Any log a(u) on the unit cube, up to a constant, with its gradient."""

    def value(self, unit: Array) -> Array:
        """Log a at points (n, k): (n,)."""

    def value_and_gradient(self, unit: Array) -> tuple[Array, Array]:
        """Log a (n,) and its gradient in the unit cube (n, k)."""


class LearnedAcquisition(LogAcquisition, Protocol):
    """A log acquisition that learns from records; flat before it has."""

    def fit(self, table: Table, rng: np.random.Generator) -> None:
        """Learns from the whole history, starting from where it was."""

    @property
    def flat(self) -> bool:
        """Whether it knows no difference between points yet."""

    def state(self) -> State:
        """Everything learned."""

    def restore(self, state: State) -> None:
        """Puts it back."""

    def diagnostics(self) -> dict[str, float]:
        """Named finite numbers."""


@runtime_checkable
class Candidates(Protocol):
    """An acquisition that knows its value at many draws of the prior already."""

    @property
    def candidates(self) -> tuple[Array, Array] | None:
        """Points of the unit cube (m, k) and log a there (m,), the same object until it learns again."""


@dataclass(frozen=True)
class Tilt:
    """The density a(u)^exponent / Z on the unit cube, Z by Monte Carlo.

    Args:
        exponent: of the acquisition.
        log_normaliser: log Z.
    """

    exponent: float
    log_normaliser: float

    @classmethod
    def normalised(cls, exponent: float, pool_values: Array) -> "Tilt":
        """Takes Z as the mean of a^exponent over log a at uniform points, (m,)."""
        total = float(logsumexp(exponent * pool_values))
        return cls(exponent, total - float(np.log(len(pool_values))))

    def log_density(self, values: Array) -> Array:
        """Log density where log a takes `values`, (n,)."""
        return self.exponent * values - self.log_normaliser


def matching_exponent(pool_values: Array, mean_value: float, largest: float) -> float:
    """The exponent b in [0, largest] at which a^b / Z has E[log a] = `mean_value`.

    Among all densities a^b / Z it is the one of greatest likelihood for draws whose log a has that
    mean: an exponential family with log a as its statistic.

    Args:
        pool_values: (m,), log a at uniform points.
        mean_value: mean of log a over the draws.
        largest: upper end of the search.
    """
    low, high = 0.0, largest
    for _ in range(40):
        middle = 0.5 * (low + high)
        weight = np.exp(middle * (pool_values - pool_values.max()))
        if float(weight @ pool_values) < mean_value * float(weight.sum()):
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)

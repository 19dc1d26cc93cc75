"""The base class of the acquisitions a(λ), and the density of their target.

The target is π ∝ p a^β. In the unit cube p is 1, so that π is an *exponential tilt* of the uniform
density by log a. Only its normalization has to be estimated.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.acquisition.prediction_features import Probe
from melissa_gen.sampling.base import State

__all__ = ["Acquisition", "Tilt", "effective_size", "matching_exponent", "supported_exponent"]

Array = NDArray[np.float64]


class Acquisition(ABC):
    """Base class of the acquisitions: log a(u) on the unit cube, up to a constant.

    A subclass implements `value_and_gradient`. The defaults of the other methods suit a known function
    that does not learn.
    """

    @abstractmethod
    def value_and_gradient(self, unit: Array) -> tuple[Array, Array]:
        """Returns log a (n,) and its gradient (n, k) at points (n, k) of the unit cube."""

    def value(self, unit: Array) -> Array:
        """Returns log a (n,) at points (n, k) of the unit cube."""
        return self.value_and_gradient(unit)[0]

    def difficulty(self, unit: Array) -> Array:
        """Returns the predicted log difficulty (n,), up to a constant: log a, unless a also depends on a cost."""
        return self.value(unit)

    @property
    def flat(self) -> bool:
        """Whether log a is constant, as it is before the first learning."""
        return False

    @property
    def candidates(self) -> tuple[Array, Array] | None:
        """Draws of the prior at which log a is already known, or None.

        Points of the unit cube (m, k) and log a there (m,). The same object is returned until the
        acquisition learns again.
        """
        return None

    def fit(self, table: EvidenceTable, rng: np.random.Generator) -> None:
        """Learns from the whole history, starting from the last fit."""

    @property
    def uses_surrogate(self) -> bool:
        """Whether `observe` has an effect."""
        return False

    @property
    def costly(self) -> bool:
        """Whether log a at a point is so costly that fewer points than usual are evaluated."""
        return False

    @property
    def uses_run_times(self) -> bool:
        """Whether the acquisition learns from the run times of simulations."""
        return False

    def observe(self, probe: Probe) -> None:
        """Gives the acquisition a snapshot of the surrogate, evaluated at points of the unit cube."""

    def state(self) -> State:
        """Returns everything learned, as arrays and JSON values."""
        return {}

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""

    def diagnostics(self) -> dict[str, float]:
        """Returns named finite numbers."""
        return {}


@dataclass(frozen=True)
class Tilt:
    """The density a(u)^exponent / Z on the unit cube.

    Args:
        exponent: Exponent of the acquisition.
        log_normalizer: log Z.
    """

    exponent: float
    log_normalizer: float

    @classmethod
    def normalized(cls, exponent: float, pool_values: Array) -> "Tilt":
        """Creates a tilt with Z estimated as the mean of a^exponent; `pool_values` (m,) is log a at uniform points."""
        from scipy.special import logsumexp

        total = float(logsumexp(exponent * pool_values))
        return cls(exponent, total - float(np.log(len(pool_values))))

    def log_density(self, values: Array) -> Array:
        """Returns the log density (n,) at points where log a has the given `values` (n,)."""
        return self.exponent * values - self.log_normalizer


def supported_exponent(pool_values: Array, exponent: float, effective: float) -> float:
    """Returns the largest exponent b up to `exponent` for which a^b has some effective sample size in a pool.

    Args:
        pool_values: (m,), log a at uniform points.
        exponent: The exponent that is wanted.
        effective: The effective sample size (Σw)² / Σw², w = a^b, that is wanted; at most m.
    """
    low, high = 0.0, exponent
    if effective_size(exponent * pool_values) >= effective:
        return exponent
    for _ in range(40):
        middle = 0.5 * (low + high)
        if effective_size(middle * pool_values) >= effective:
            low = middle
        else:
            high = middle
    return low


def effective_size(log_weight: Array) -> float:
    """Returns the effective sample size (Σw)² / Σw² of weights given by their logarithms (n,)."""
    weight = np.exp(log_weight - log_weight.max())
    return float(weight.sum() ** 2 / (weight @ weight))


def matching_exponent(pool_values: Array, mean_value: float, largest: float) -> float:
    """Returns the exponent b in [0, largest] for which a^b / Z has E[log a] = `mean_value`.

    The densities a^b / Z are an exponential family with the statistic log a. Therefore b is the
    maximum-likelihood exponent for draws whose log a has this mean.

    Args:
        pool_values: (m,), log a at uniform points.
        mean_value: Mean of log a over the draws.
        largest: Upper end of the search interval.
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

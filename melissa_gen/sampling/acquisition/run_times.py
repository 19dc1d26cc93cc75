"""An acquisition per cost: where simulations are slow, fewer of them are proposed.

The cost of a simulation is the time from its start on a client to its last sample. Its logarithm is interpolated from
the simulations that have finished.
"""

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.acquisition.adjusted_acquisition import AdjustedAcquisition
from melissa_gen.sampling.acquisition.base_acquisition import Acquisition
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.acquisition.kernel_interpolation import KernelInterpolant
from melissa_gen.sampling.base import State, part_of

__all__ = ["PerRunTime"]

Array = NDArray[np.float64]

_LEAST_RECORDS = 8
_MOST_RECORDS = 400
_LEAST_EXPLAINED = 0.1
# Run times are noisy: other jobs use the same node. These ridges are variances of the noise, relative to the total one.
_RIDGES = (0.01, 0.1, 1.0)
_SHORTEST = 0.25


class PerRunTime(AdjustedAcquisition):
    """Divides another acquisition by the expected run time of a simulation.

    Log run time is interpolated between the newest 400 finished simulations by kernel ridge regression. While fewer
    than 8 have finished, or where λ explains less than a tenth of the variance in leave-one-out prediction, the cost
    counts as equal for all simulations. The cost is relative to its geometric mean over the candidates.

    Args:
        inner: Acquisition that learns from difficulties.
    """

    def __init__(self, inner: Acquisition) -> None:
        super().__init__(inner)
        self._cost = KernelInterpolant(_RIDGES)
        self._level = 0.0
        self._varies = False

    @property
    def uses_run_times(self) -> bool:
        """True: the cost follows from the run times."""
        return True

    def fit(self, table: EvidenceTable, rng: np.random.Generator) -> None:
        """Fits the inner acquisition and the run time to the whole history."""
        self._inner.fit(table, rng)
        table = table.rows(table.seconds > 0.0)
        table = table.rows(slice(-_MOST_RECORDS, None))
        self._varies = len(table) >= _LEAST_RECORDS and table.unit.shape[1] > 0
        if self._varies:
            # Newest first: the scale is chosen by the first of them.
            unit, log_seconds = table.unit[::-1], np.log(table.seconds[::-1])
            rate = float(log_seconds.std()) / _SHORTEST
            self._cost.fit(unit, log_seconds, np.full((1, unit.shape[1]), rate))
            self._varies = self._cost.fitted and self._cost.explained >= _LEAST_EXPLAINED
        self._take_candidates()

    def value(self, unit: Array) -> Array:
        """Returns log a (n,) at points (n, k) of the unit cube."""
        value = self._inner.value(unit)
        return value - self._cost.value(unit) + self._level if self._varies else value

    def value_and_gradient(self, unit: Array) -> tuple[Array, Array]:
        """Returns log a (n,) and its gradient (n, k) at points (n, k) of the unit cube."""
        value, gradient = self._inner.value_and_gradient(unit)
        if not self._varies:
            return value, gradient
        cost, slope = self._cost.value_and_gradient(unit)
        return value - cost + self._level, gradient - slope

    def difficulty(self, unit: Array) -> Array:
        """Returns log a (n,) without the cost."""
        return self._inner.difficulty(unit)

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        return {
            "varies": self._varies,
            **{f"cost.{key}": value for key, value in self._cost.state().items()},
            **{f"inner.{key}": value for key, value in self._inner.state().items()},
        }

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self._varies = bool(state["varies"])
        self._cost.restore(part_of(state, "cost."))
        self._inner.restore(part_of(state, "inner."))
        self._take_candidates()

    def diagnostics(self) -> dict[str, float]:
        """Returns those of the inner acquisition, and the share of the variance of log run time that λ explains."""
        explained = self._cost.explained if self._varies else 0.0
        return {**self._inner.diagnostics(), "run_time_explained": explained}

    def _take_candidates(self) -> None:
        known, self._level = self._inner.candidates, 0.0
        if known is not None and self._varies:
            cost = self._cost.value(known[0])
            self._level = float(cost.mean())
            known = known[0], known[1] - cost + self._level
        self._candidates = known

"""An acquisition that keeps adaptive points away from regions where simulations fail.

A failed simulation has no difficulty, so an acquisition learns nothing from it and would continue to
propose a region where no simulation completes. `FailureAvoidance` multiplies a(λ) by an estimate
of the probability of success there.
"""

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.acquisition.adjusted_acquisition import AdjustedAcquisition
from melissa_gen.sampling.acquisition.base_acquisition import Acquisition
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.base import State, part_of

__all__ = ["FailureAvoidance"]

Array = NDArray[np.float64]


class FailureAvoidance(AdjustedAcquisition):
    """Adds the log probability of success to the log a of another acquisition.

    With Gaussian kernels K around the records, of width `width` √k in the unit cube,

        P(success | u) = (1 + Σ_completed K(u, u_i)) / (1 + Σ_all K(u, u_i)).

    The estimate is 1 far from all failures, and about 1 / (1 + m) at m coincident failures without a
    success nearby. The prior's share of the mixture is not affected. Without failures there is no
    additional cost.

    Args:
        inner: Acquisition that learns from the simulations with a difficulty.
        width: Kernel width for one axis.
    """

    def __init__(self, inner: Acquisition, width: float = 0.1) -> None:
        super().__init__(inner)
        self._width = width
        self._unit = np.empty((0, 0))
        self._failed = np.empty(0, dtype=bool)

    def fit(self, table: EvidenceTable, rng: np.random.Generator) -> None:
        """Fits the inner acquisition and the probability of success to the whole history."""
        self._failed = np.isnan(table.difficulty)
        self._unit = table.unit
        self._inner.fit(table, rng)
        self._take_candidates()

    def value(self, unit: Array) -> Array:
        """Returns log a (n,) at points (n, k) of the unit cube."""
        value = self._inner.value(unit)
        return value + self._success(unit)[0] if self._failed.any() else value

    def value_and_gradient(self, unit: Array) -> tuple[Array, Array]:
        """Returns log a (n,) and its gradient (n, k) at points (n, k) of the unit cube."""
        value, gradient = self._inner.value_and_gradient(unit)
        if not self._failed.any():
            return value, gradient
        success, slope = self._success(unit)
        return value + success, gradient + slope

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        inner = {f"inner.{key}": value for key, value in self._inner.state().items()}
        return {"unit": self._unit.copy(), "failed": self._failed.copy(), **inner}

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self._unit, self._failed = np.array(state["unit"]), np.array(state["failed"])
        self._inner.restore(part_of(state, "inner."))
        self._take_candidates()

    def _take_candidates(self) -> None:
        known = self._inner.candidates
        if known is not None and self._failed.any():
            known = known[0], known[1] + self._success(known[0])[0]
        self._candidates = known

    def _success(self, unit: Array) -> tuple[Array, Array]:
        """Returns log P(success) (n,) and its gradient (n, k) at points (n, k) of the unit cube."""
        precision = 1.0 / (self._width**2 * max(unit.shape[1], 1))
        squared = (unit**2).sum(axis=1)[:, None] + (self._unit**2).sum(axis=1)
        squared = np.maximum(squared - 2.0 * unit @ self._unit.T, 0.0)
        kernel = np.exp(-0.5 * precision * squared)
        completed = kernel[:, ~self._failed]
        above, below = 1.0 + completed.sum(axis=1), 1.0 + kernel.sum(axis=1)
        # Σ_i K (u_i - u) / width² for both sums.
        slope_above = precision * (
            completed @ self._unit[~self._failed] - (above - 1.0)[:, None] * unit
        )
        slope_below = precision * (kernel @ self._unit - (below - 1.0)[:, None] * unit)
        gradient = slope_above / above[:, None] - slope_below / below[:, None]
        return np.asarray(np.log(above / below)), np.asarray(gradient)

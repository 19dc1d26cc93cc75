"""The base class of acquisitions that adjust another one."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.acquisition.base_acquisition import Acquisition
from melissa_gen.sampling.acquisition.prediction_features import Probe

__all__ = ["AdjustedAcquisition"]

Array = NDArray[np.float64]


class AdjustedAcquisition(Acquisition):
    """Adds a term to the log a of another acquisition; a subclass computes it, and sets `_candidates` after learning.

    Args:
        inner: Acquisition that learns from difficulties.
    """

    def __init__(self, inner: Acquisition) -> None:
        self._inner = inner
        self._candidates: tuple[Array, Array] | None = None

    def put_inside(self, make: Callable[[Acquisition], Acquisition]) -> None:
        """Adjusts the acquisition that learns once more, before all other adjustments.

        Args:
            make: Creates the acquisition that adjusts the one it is given.
        """
        if isinstance(self._inner, AdjustedAcquisition):
            self._inner.put_inside(make)
        else:
            self._inner = make(self._inner)

    @property
    def flat(self) -> bool:
        """Whether the inner acquisition is constant; the term alone does not start adaptive sampling."""
        return self._inner.flat

    @property
    def uses_surrogate(self) -> bool:
        """Whether the inner acquisition uses the surrogate."""
        return self._inner.uses_surrogate

    @property
    def costly(self) -> bool:
        """Whether the inner acquisition is costly."""
        return self._inner.costly

    @property
    def uses_run_times(self) -> bool:
        """Whether the inner acquisition learns from the run times of simulations."""
        return self._inner.uses_run_times

    def observe(self, probe: Probe) -> None:
        """Passes the snapshot of the surrogate to the inner acquisition."""
        self._inner.observe(probe)

    @property
    def candidates(self) -> tuple[Array, Array] | None:
        """Draws of the prior at which log a is already known, or None."""
        return self._candidates

    def diagnostics(self) -> dict[str, float]:
        """Returns named finite numbers."""
        return self._inner.diagnostics()

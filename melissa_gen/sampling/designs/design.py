"""Samplers that do not learn: a stream of points of the unit cube, whatever the evidence says."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from melissa_gen.errors import StudyError
from melissa_gen.sampling.base import PRIOR, Evidence, Proposals, State
from melissa_gen.sampling.prior.priors import Prior

__all__ = ["DesignSampler", "Stream"]

Array = NDArray[np.float64]

_REFUSED = 100_000


class Stream(Protocol):
    """Where a design's points come from."""

    def draw(self, n: int, generation: int) -> Array:
        """The next n points of the unit cube: (n, k)."""

    def state(self) -> State:
        """The stream's position."""

    def restore(self, state: State) -> None:
        """Goes to a saved position."""


class DesignSampler:
    """Draws from the prior through a `Stream`; its density is the prior's, its points "prior".

    Args:
        name: the method.
        prior: p(λ).
        stream: the points.
    """

    def __init__(self, name: str, prior: Prior, stream: Stream) -> None:
        self.name = name
        self.prior = prior
        self.generation = 0
        self._stream = stream
        self._waiting = False
        self._suggested = 0

    def suggest(self, n: int) -> Proposals:
        """Draws n points; see `Sampler`."""
        self.update()
        points = self.prior.from_unit(self._feasible(n))
        self._suggested += n
        return Proposals(
            points=points,
            log_density=self.prior.log_density(points),
            method=[PRIOR] * n,
            generation=self.generation,
            parents=np.full(n, -1, dtype=np.int64),
        )

    def _feasible(self, n: int) -> Array:
        """The stream's next n points, those left out that do not meet the prior's constraints.

        Raises:
            StudyError: 100,000 points in a row did not.
        """
        unit = self._stream.draw(n, self.generation)
        if not self.prior.constrained:
            return unit
        unit = unit[self.prior.feasible(unit)]
        refused = 0
        while len(unit) < n:
            more = self._stream.draw(n - len(unit), self.generation)
            met = self.prior.feasible(more)
            refused = 0 if met.any() else refused + len(more)
            if refused >= _REFUSED:
                msg = f"sampler.method {self.name} has no points that meet the constraints."
                raise StudyError(msg)
            unit = np.concatenate([unit, more[met]])
        return unit

    def ingest(self, evidence: Sequence[Evidence]) -> None:
        """Notes that there is evidence; its content changes nothing."""
        self._waiting = self._waiting or len(evidence) > 0

    def update(self) -> None:
        """Starts the next generation where evidence has come."""
        self.generation += int(self._waiting)
        self._waiting = False

    def state(self) -> State:
        """See `Sampler`."""
        return {
            "name": self.name,
            "generation": self.generation,
            "waiting": self._waiting,
            "suggested": self._suggested,
            "stream": self._stream.state(),
        }

    def restore(self, state: State) -> None:
        """See `Sampler`."""
        self.generation = state["generation"]
        self._waiting = state["waiting"]
        self._suggested = state["suggested"]
        self._stream.restore(state["stream"])

    def diagnostics(self) -> dict[str, float]:
        """See `Sampler`."""
        return {"generation": float(self.generation), "suggested": float(self._suggested)}

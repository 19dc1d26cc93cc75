"""Samplers that do not learn: a stream of points of the unit cube, whatever the evidence says."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from melissa_gen.errors import StudyError
from melissa_gen.sampling.base import PRIOR, Evidence, Proposals, Sampler, State
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["DesignSampler", "PointSequence"]

Array = NDArray[np.float64]

_REFUSED = 100_000


class PointSequence(ABC):
    """Base class of the sequences of points that the designs draw from."""

    @abstractmethod
    def draw(self, n: int, generation: int) -> Array:
        """Returns the next n points (n, k) of the unit cube.

        Args:
            n: Number of points.
            generation: Generation of the sampler that they are for.
        """

    @abstractmethod
    def state(self) -> State:
        """Returns the position in the sequence."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Moves to a saved position."""


class DesignSampler(Sampler):
    """Draws from the prior through a `PointSequence`; its density is the prior's, its points "prior".

    Args:
        name: the method.
        prior: p(λ).
        sequence: the points.
    """

    def __init__(self, name: str, prior: Prior, sequence: PointSequence) -> None:
        super().__init__(name, prior)
        self._sequence = sequence
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
        unit = self._sequence.draw(n, self.generation)
        if not self.prior.constrained:
            return unit
        unit = unit[self.prior.feasible(unit)]
        refused = 0
        while len(unit) < n:
            more = self._sequence.draw(n - len(unit), self.generation)
            met = self.prior.feasible(more)
            refused = 0 if met.any() else refused + len(more)
            if refused >= _REFUSED:
                msg = f"sampler.method {self.name} has no points that meet the constraints."
                raise StudyError(msg)
            unit = np.concatenate([unit, more[met]])
        return unit

    def log_density(self, points: Array) -> Array:
        """Returns the log density of the prior at physical points (n, d): (n,)."""
        return self.prior.log_density(points)

    def ingest(self, evidence: Sequence[Evidence]) -> None:
        """Notes that there is evidence; its content changes nothing."""
        self._waiting = self._waiting or len(evidence) > 0

    def update(self) -> None:
        """Starts the next generation where evidence has come."""
        self.generation += int(self._waiting)
        self._waiting = False

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        return {
            "name": self.name,
            "generation": self.generation,
            "waiting": self._waiting,
            "suggested": self._suggested,
            "stream": self._sequence.state(),
        }

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self.generation = state["generation"]
        self._waiting = state["waiting"]
        self._suggested = state["suggested"]
        self._sequence.restore(state["stream"])

    def diagnostics(self) -> dict[str, float]:
        """Returns named finite numbers."""
        return {"generation": float(self.generation), "suggested": float(self._suggested)}

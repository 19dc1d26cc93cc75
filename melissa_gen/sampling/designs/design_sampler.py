"""Samplers that do not learn: their points are a sequence that does not depend on the evidence."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from melissa_gen.errors import StudyError
from melissa_gen.sampling.base import PRIOR, Evidence, Proposals, Sampler, State
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["DesignSampler", "PointSequence", "feasible_points"]

Array = NDArray[np.float64]

_MAX_INFEASIBLE = 100_000


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


def feasible_points(sequence: PointSequence, prior: Prior, n: int, generation: int) -> Array:
    """Returns the next n points (n, k) of a sequence that meet the constraints of the prior.

    Raises:
        StudyError: 100,000 points in a row do not meet the constraints.
    """
    unit = sequence.draw(n, generation)
    if not prior.constrained:
        return unit
    unit = unit[prior.feasible(unit)]
    infeasible = 0
    while len(unit) < n:
        more = sequence.draw(n - len(unit), generation)
        met = prior.feasible(more)
        infeasible = 0 if met.any() else infeasible + len(more)
        if infeasible >= _MAX_INFEASIBLE:
            msg = f"sampler.method has no points that meet the constraints: {infeasible:,} in a row do not."
            raise StudyError(msg)
        unit = np.concatenate([unit, more[met]])
    return unit


class DesignSampler(Sampler):
    """A sampler that draws from the prior through a `PointSequence`.

    The density of the points is that of the prior, and their provenance is "prior".

    Args:
        name: Name of the method.
        prior: Prior distribution p(λ) of the parameters.
        sequence: Sequence of points of the unit cube.
    """

    def __init__(self, name: str, prior: Prior, sequence: PointSequence) -> None:
        super().__init__(name, prior)
        self._sequence = sequence
        self._has_evidence = False
        self._suggested = 0

    def suggest(self, n: int) -> Proposals:
        """Returns the next n points of the sequence that meet the constraints.

        Raises:
            StudyError: 100,000 points in a row do not meet the constraints.
        """
        self.update()
        points = self.prior.from_unit(
            feasible_points(self._sequence, self.prior, n, self.generation)
        )
        self._suggested += n
        return Proposals(
            points=points,
            log_density=self.prior.log_density(points),
            method=[PRIOR] * n,
            generation=self.generation,
            parents=np.full(n, -1, dtype=np.int64),
        )

    def log_density(self, points: Array) -> Array:
        """Returns the log density (n,) of the prior at points (n, d) in physical units."""
        return self.prior.log_density(points)

    def ingest(self, evidence: Sequence[Evidence]) -> None:
        """Records that evidence has arrived; its content is not used."""
        self._has_evidence = self._has_evidence or len(evidence) > 0

    def update(self) -> None:
        """Starts the next generation if evidence has arrived."""
        self.generation += int(self._has_evidence)
        self._has_evidence = False

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        return {
            "name": self.name,
            "generation": self.generation,
            "waiting": self._has_evidence,
            "suggested": self._suggested,
            "stream": self._sequence.state(),
        }

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self.generation = state["generation"]
        self._has_evidence = state["waiting"]
        self._suggested = state["suggested"]
        self._sequence.restore(state["stream"])

    def diagnostics(self) -> dict[str, float]:
        """Returns named finite numbers."""
        return {"generation": float(self.generation), "suggested": float(self._suggested)}

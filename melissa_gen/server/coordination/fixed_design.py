"""The points of a run without a sampler, which are given, or drawn from the prior before the start."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from melissa_gen.sampling import PRIOR, Prior
from melissa_gen.server.coordination.ledger import SimulationRecord
from melissa_gen.server.coordination.proposals import Proposal, SamplerFailure

__all__ = ["FixedDesign"]


class FixedDesign:
    """Returns the points of a design in order; replaces a `ProposalQueue`.

    The points only depend on the prior, their number and the seed, so that a resumed run has the same points.

    Args:
        prior: The prior.
        count: Number of points.
        seed: Seed of the draws.
        given: Points to use instead of draws, `(count, d)`.

    Attributes:
        failure: None; a design cannot fail.
        uses_surrogate: False.
    """

    failure: SamplerFailure | None = None
    uses_surrogate = False

    def __init__(
        self,
        prior: Prior,
        count: int,
        seed: int,
        given: Sequence[Sequence[float]] | None = None,
    ) -> None:
        points = (
            prior.sample(count, np.random.default_rng(seed))
            if given is None
            else np.array(given, np.float64)
        )
        # What has drawn given points is unknown.
        unknown = np.full(len(points), np.nan)
        self._points = points
        self._densities = prior.log_density(points) if given is None else unknown
        self._taken = 0

    def set_probe(self, probe: Callable[[], Any]) -> None:
        """Does nothing: a design does not use the surrogate."""

    def start(self) -> None:
        """Does nothing: all points exist already."""

    def close(self) -> None:
        """Does nothing."""

    def take(self) -> Proposal:
        """Returns the next point."""
        point, density = self._points[self._taken], float(self._densities[self._taken])
        self._taken += 1
        known = density if np.isfinite(density) else None
        return Proposal(tuple(point.tolist()), PRIOR, 0, known, 1.0)

    def add_losses(self, losses: Sequence[Sequence[float]]) -> None:
        """Does nothing: no surrogate is trained."""

    def register(self, record: SimulationRecord) -> None:
        """Does nothing: the design does not depend on the results of simulations."""

    def difficulty(self, simulation: int) -> float | None:
        """Returns None: no surrogate is trained."""
        return None

    def state(self) -> dict[str, Any]:
        """Returns the number of points that were taken."""
        return {"taken": self._taken}

    def restore(self, state: Mapping[str, Any], records: Iterable[SimulationRecord]) -> None:
        """Continues from the `state()` of an earlier server."""
        self._taken = int(state["taken"])

    def statistics(self) -> dict[str, Any]:
        """Returns the figures of `ProposalQueue.statistics`."""
        return {
            "method": PRIOR,
            "generation": 0,
            "generations": 0,
            "state": "idle",
            "suggested": self._taken,
            "adaptive": 0,
            "late": 0,
            "paced": 0,
            "failed_generations": 0,
            "seconds": 0.0,
        }

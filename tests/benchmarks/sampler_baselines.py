"""Batch active learning for the comparison of samplers: `sbal` and `lcmd`, which choose from a pool of the prior.

Both choose all points of a round after the first one, and know no density, so that their losses have no weights.

References: `sbal`: Kirsch, Farquhar, Atighehchian, Jesson, Branchaud-Charron and Gal, "Stochastic batch acquisition",
arXiv 2106.12059, the power rule, as in Musekamp et al., "Active learning for neural PDE solvers", arXiv 2408.01536;
`lcmd`: Holzmüller, Zaverkin, Kästner and Steinwart, "A framework and benchmark for deep batch active learning for
regression", arXiv 2203.09410.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from melissa_gen.sampling import PRIOR, Evidence, Prior, Proposals, Sampler
from melissa_gen.sampling.base import State
from melissa_gen.sampling.designs.quasi_random import even_draws

if TYPE_CHECKING:
    from sampler_fleet import Fleet

__all__ = ["BASELINES", "BatchActive"]

Array = NDArray[np.float64]

BASELINES = ("sbal", "lcmd")
_CANDIDATES = 1024
_TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)


class BatchActive(Sampler):
    """A method of batch active learning.

    `sbal` draws without repetition in proportion to the standard deviation of the prediction, for which the novelty of
    the surrogate stands. `lcmd` (largest cluster, maximum distance) works in the space of the last hidden layer at five
    times: simulated and chosen points are centers, each candidate belongs to its nearest center, and the next point is
    the one farthest from its center in the cluster with the largest sum of squared distances.

    Args:
        name: `sbal` or `lcmd`.
        prior: p(λ).
        seed: of its draws.
    """

    def __init__(self, name: str, prior: Prior, seed: int) -> None:
        super().__init__(name, prior)
        self._rng = np.random.default_rng([seed, 3])
        self._draws = even_draws(prior)

    def attach(self, fleet: "Fleet", slot: int) -> None:
        """Sets the surrogate."""
        self._fleet, self._slot = fleet, slot

    def ingest(self, evidence: Sequence[Evidence]) -> None:
        """Ignores the evidence: both methods ask the surrogate."""

    def update(self) -> None:
        self.generation += 1

    def suggest(self, n: int) -> Proposals:
        seen = np.array(self._fleet.slots[self._slot].points)
        name = self.name if len(seen) else PRIOR
        pool = self.prior.from_unit(self._draws(_CANDIDATES if len(seen) else n, self._rng))
        if len(seen):
            pool = pool[
                self._spread(pool, seen, n) if self.name == "lcmd" else self._drawn(pool, seen, n)
            ]
        return Proposals(
            points=pool,
            log_density=np.full(n, np.nan) if len(seen) else self.prior.log_density(pool),
            method=[name] * n,
            generation=self.generation,
            parents=np.full(n, -1, dtype=np.int64),
        )

    def state(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        """It is never restored."""

    def _drawn(self, pool: Array, seen: Array, n: int) -> NDArray[np.int64]:
        """Draws n of the candidates in proportion to their novelty, by the largest of perturbed logarithms."""
        probe = self._fleet.probe(self._slot).with_seen(seen)
        novelty = probe.features(pool)[:, probe.names.index("novelty")]
        return np.argsort(-(novelty + self._rng.gumbel(size=len(pool))))[:n]

    def _spread(self, pool: Array, seen: Array, n: int) -> list[int]:
        candidates, centers = self._hidden(pool), self._hidden(seen)
        square = (
            (candidates**2).sum(1)[:, None] + (centers**2).sum(1) - 2.0 * candidates @ centers.T
        )
        nearest, distance = square.argmin(axis=1), square.min(axis=1).clip(min=0.0)
        chosen: list[int] = []
        for _ in range(n):
            sizes = np.bincount(nearest, distance, len(centers) + n)
            inside = np.flatnonzero(nearest == sizes.argmax())
            best = int(inside[distance[inside].argmax()])
            moved = ((candidates - candidates[best]) ** 2).sum(axis=1)
            nearest = np.where(moved < distance, len(centers) + len(chosen), nearest)
            distance = np.minimum(distance, moved)
            chosen.append(best)
        return chosen

    def _hidden(self, points: Array) -> Array:
        """Returns the last hidden layer at five times: (n, 5 width)."""
        unit = self.prior.to_unit(points)
        clock = np.tile(_TIMES, len(unit))[:, None]
        inputs = np.concatenate([np.repeat(unit, len(_TIMES), axis=0), clock], axis=1)
        rows = torch.from_numpy((2.0 * inputs - 1.0).astype(np.float32))[None]
        with torch.no_grad():
            hidden = self._fleet.network.slot(self._slot).hidden(rows)[0]
        found: Array = hidden.reshape(len(unit), -1).double().numpy()
        return found

"""`oracle`: the method `pool` with the true error of every candidate, as an upper bound of the gain."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from melissa_gen.sampling import PRIOR, Evidence, Prior, Proposals, Sampler
from melissa_gen.sampling.adaptive_share import Ramp
from melissa_gen.sampling.base import State

if TYPE_CHECKING:
    from sampler_fleet import Fleet

Array = NDArray[np.float64]

_CANDIDATES = 1024
_TIMES = 5


class Oracle(Sampler):
    """A sampler that scores points, solved beforehand, by the surrogate's true error on them.

    Args:
        prior: p(λ).
        seed: of its draws.
        beta: exponent of the error, a root mean square; the best of those tried on Burgers.
    """

    def __init__(self, prior: Prior, seed: int, beta: float = 2.8) -> None:
        super().__init__("oracle", prior)
        self._beta = beta
        self._rng = np.random.default_rng(seed)
        self._ramp = Ramp()
        self._fresh = False
        self._known: set[int] = set()
        self._learned = 0

    def attach(self, fleet: "Fleet", slot: int, points: Array, fields: NDArray[np.float32]) -> None:
        """Sets the surrogate and the solved points."""
        self._fleet, self._slot, self._points, self._fields = fleet, slot, points, fields

    def ingest(self, evidence: Sequence[Evidence]) -> None:
        self._fresh = len(evidence) > 0
        self._known.update(one.simulation for one in evidence)

    def update(self) -> None:
        self.generation += self._fresh
        self._learned = len(self._known)
        self._fresh = False

    def suggest(self, n: int) -> Proposals:
        share = self._ramp.share(self.generation, self._learned)
        chosen = self._rng.choice(
            len(self._points), size=min(_CANDIDATES, len(self._points)), replace=False
        )
        log_ratio = np.zeros(n)
        taken = chosen[:n]
        adaptive = int(n * share) + int(self._rng.random() < n * share - int(n * share))
        if share > 0.0:
            errors = self._fleet.slot_errors(
                self._slot, self._points[chosen], self._fields[chosen], _TIMES
            )
            if self._fleet.relative:
                errors = errors / np.sqrt((self._fields[chosen] ** 2).mean(axis=(1, 2)))
            score = self._beta * np.log(errors)
            log_mean = float(logsumexp(score)) - float(np.log(len(score)))
            best = np.argpartition(-(score + self._rng.gumbel(size=len(score))), adaptive)[
                :adaptive
            ]
            index = np.concatenate([best, self._rng.integers(len(chosen), size=n - adaptive)])
            taken = chosen[index]
            log_ratio = np.logaddexp(np.log1p(-share), np.log(share) + score[index] - log_mean)
        points = self._points[taken]
        return Proposals(
            points=points,
            log_density=self.prior.log_density(points) + log_ratio,
            method=[self.name] * adaptive + [PRIOR] * (n - adaptive),
            generation=self.generation,
            parents=np.full(n, -1, dtype=np.int64),
        )

    def state(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        """It is never restored."""

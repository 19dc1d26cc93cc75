"""`pool`: sampling-importance-resampling from a large uniform pool scored by a(λ)^β.

Draw m uniform points, weigh each by a^β, and resample. In the limit of a large pool the draws
follow p a^β exactly. Cheap while d is small: any generative method has to beat it at equal cost.

Reference: Rubin, "Using the SIR algorithm to simulate posterior distributions", 1988.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from melissa_gen.sampling.acquisition.base_acquisition import Acquisition
from melissa_gen.sampling.adaptive.acquisition_rule import (
    AcquisitionArguments,
    PriorDraws,
    Proposer,
    acquisition_sampler,
)
from melissa_gen.sampling.adaptive.mixture import MixtureSampler
from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["Pool", "PoolArguments", "build"]

Array = NDArray[np.float64]

_LARGEST = 16
_ENOUGH = 4.0


class PoolArguments(AcquisitionArguments):
    """Arguments of `pool`."""

    size: int = Field(
        1024, ge=64, le=1_000_000, description="uniform points a pool starts with; it may grow"
    )


class Pool(Proposer):
    """Proposer of `pool`.

    Points are taken without replacement (the Gumbel top-n trick), since running one simulation
    twice teaches nothing. That is the same law while n is far below the pool's effective size, so
    the pool grows until that is 4 n, up to 16 times its size. Where even this is too few points
    (a small target in many dimensions) the draws are wider than the target: see `pool_ess`.

    An acquisition that has candidates gives the first pool of each learning.

    Args:
        dimension: axes k of the unit cube.
        size: points that a pool starts with.
        prior_draws: draws n points of the prior (n, k), where that is not uniform in the cube.
    """

    exact = True

    def __init__(
        self, dimension: int, size: int = 1024, prior_draws: PriorDraws | None = None
    ) -> None:
        self._dimension = dimension
        self._prior_draws = prior_draws or self._uniform
        self._size = size
        self._effective = float(size)
        self._drawn_from: tuple[Array, Array] | None = None

    def draw(
        self, n: int, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> Array:
        """Draws n points (n, k) of the unit cube."""
        size = max(self._size, 4 * n)
        known = acquisition.candidates
        # Once: a second draw from the same candidates could run a simulation twice.
        ready = known is not None and known is not self._drawn_from
        self._drawn_from = known
        pool, score = np.empty((0, self._dimension)), np.empty(0)
        for turn in range(_LARGEST):
            if turn == 0 and ready and known is not None:
                more, value = known
            else:
                more = self._prior_draws(size, rng)
                value = acquisition.value(more)
            pool = np.concatenate([pool, more])
            score = np.concatenate([score, beta * value])
            weight = np.exp(score - score.max())
            self._effective = float(weight.sum() ** 2 / (weight @ weight))
            if self._effective >= _ENOUGH * n:
                break
        taken = np.argpartition(-(score + rng.gumbel(size=len(score))), n)[:n]
        return np.asarray(pool[rng.permutation(taken)])

    def _uniform(self, n: int, rng: np.random.Generator) -> Array:
        return rng.random((n, self._dimension))

    def diagnostics(self) -> dict[str, float]:
        """The pool's effective sample size."""
        return {"pool_ess": self._effective}


def build(prior: Prior, seed: int, arguments: PoolArguments, schedule: Schedule) -> MixtureSampler:
    """The `pool` sampler."""
    proposer = Pool(prior.unit_dimension, arguments.size, prior.sample_unit)
    return acquisition_sampler("pool", prior, seed, arguments, proposer, schedule, arguments.beta)

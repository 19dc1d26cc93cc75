"""`pool`: sampling-importance-resampling from a large uniform pool scored by a(λ)^β.

The method draws m points of the prior, weights each by a^β, and resamples. In the limit of a large
pool the draws follow p a^β exactly. The method is cheap in few dimensions and is the baseline of the
generative methods.

Reference: Rubin, "Using the SIR algorithm to simulate posterior distributions", Bayesian Statistics 3
(1988).
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

# Largest growth of the pool, and effective sample size per draw at which it stops growing.
_MAX_GROWTH = 16
_MIN_EFFECTIVE_PER_DRAW = 4.0


class PoolArguments(AcquisitionArguments):
    """Arguments of `pool`."""

    size: int = Field(
        1024,
        ge=64,
        le=1_000_000,
        description="initial number of points in the pool, which may grow",
    )


class Pool(Proposer):
    """Proposer of the method `pool`.

    Points are drawn without replacement (Gumbel top-n trick), because a repeated simulation adds no
    information. The distribution is the same if n is far below the effective sample size of the
    pool. The pool therefore grows until its effective sample size is 4 n, at most to 16 times its
    initial size. If this is not sufficient (a narrow target in many dimensions), the draws are wider
    than the target, and the diagnostic `pool_ess` is small.

    If the acquisition has candidates, they are the first pool after each learning.

    Args:
        dimension: Number of axes k of the unit cube.
        size: Initial number of points in the pool.
        prior_draws: Function that draws n points (n, k) of the prior in the unit cube; by default
            they are uniform.
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
        # The candidates are used once: a second draw from them could repeat a simulation.
        ready = known is not None and known is not self._drawn_from
        self._drawn_from = known
        pool, score = np.empty((0, self._dimension)), np.empty(0)
        for turn in range(_MAX_GROWTH):
            if turn == 0 and ready and known is not None:
                more, value = known
            else:
                more = self._prior_draws(size, rng)
                value = acquisition.value(more)
            pool = np.concatenate([pool, more])
            score = np.concatenate([score, beta * value])
            weight = np.exp(score - score.max())
            self._effective = float(weight.sum() ** 2 / (weight @ weight))
            if self._effective >= _MIN_EFFECTIVE_PER_DRAW * n:
                break
        taken = np.argpartition(-(score + rng.gumbel(size=len(score))), n)[:n]
        return np.asarray(pool[rng.permutation(taken)])

    def _uniform(self, n: int, rng: np.random.Generator) -> Array:
        return rng.random((n, self._dimension))

    def diagnostics(self) -> dict[str, float]:
        """Returns the effective sample size of the last pool."""
        return {"pool_ess": self._effective}


def build(prior: Prior, seed: int, arguments: PoolArguments, schedule: Schedule) -> MixtureSampler:
    """Creates the `pool` sampler."""
    proposer = Pool(prior.unit_dimension, arguments.size, prior.sample_unit)
    return acquisition_sampler("pool", prior, seed, arguments, proposer, schedule, arguments.beta)

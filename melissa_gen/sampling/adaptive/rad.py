"""`rad`: residual-based adaptive distribution, p ∝ ε^k / E[ε^k] + c, drawn from a dense pool.

The method scores a dense set of points of the prior by the residual ε, converts the scores into
probabilities, and draws points without replacement. RAD uses k = 1 and c = 1, so that half of its
points are uniform. `rar_d` uses k = 2 and c = 0.

In the paper, ε is the residual of a differential equation, which can be evaluated at any point. A
simulation that has not been run has no residual, so ε is the learned acquisition a(λ) here. It predicts the
difficulty, which by default is a mean *squared* error: k = 1 here is k = 2 in terms of the error itself, and `k: 0.5`
is the k = 1 of the paper. The density is known in closed form except for E[ε^k], which is estimated from 4,096 points
of the prior.

Reference: Wu, Zhu, Tan, Kartha, Lu, arXiv 2207.10289, equation 2 and algorithm 2.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from melissa_gen.sampling.acquisition.base_acquisition import Acquisition
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.adaptive.acquisition_rule import (
    DensityProposer,
    EnsembleArguments,
    PriorDraws,
    acquisition_sampler,
)
from melissa_gen.sampling.adaptive.mixture import MixtureSampler
from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.base import State
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["RadArguments", "ResidualDistribution", "build"]

Array = NDArray[np.float64]

_EXPECTATION = 4096
# The pool grows, at most to this multiple of its size, until its effective sample size is this
# multiple of the number of draws. Drawing without replacement from a smaller pool would flatten the
# distribution.
_MAX_GROWTH = 16
_MIN_EFFECTIVE_PER_DRAW = 4.0


class RadArguments(EnsembleArguments):
    """Arguments of `rad`."""

    k: float = Field(1.0, ge=0.0, le=20.0, description="exponent k of the residual")
    c: float = Field(1.0, ge=0.0, le=1e6, description="constant c, the weight of uniform points")
    size: int = Field(10_000, ge=64, le=1_000_000, description="number of points in the dense pool")


class ResidualDistribution(DensityProposer):
    """Proposer of the methods `rad` and `rar_d`; the exponent k is the β of the rule.

    Args:
        prior_draws: Function that draws n points (n, k) of the prior in the unit cube.
        c: Constant c, the weight of uniform points.
        size: Number of points in the dense pool.
    """

    exact = True

    def __init__(self, prior_draws: PriorDraws, c: float, size: int = 10_000) -> None:
        self._prior_draws = prior_draws
        self._c = c
        self._size = size
        self._k = 1.0
        self._log_mean = 0.0
        self._effective = float(size)

    def fit(
        self, table: EvidenceTable, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> None:
        """Estimates E[ε^k] from points of the prior."""
        from scipy.special import logsumexp

        values = beta * acquisition.value(self._prior_draws(_EXPECTATION, rng))
        self._k = beta
        self._log_mean = float(logsumexp(values)) - float(np.log(_EXPECTATION))

    def draw(
        self, n: int, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> Array:
        """Draws n points (n, k) of the unit cube."""
        from scipy.special import logsumexp

        size = max(self._size, 4 * n)
        blocks: list[Array] = []
        log_power = np.empty(0)
        for _ in range(_MAX_GROWTH):
            blocks.append(self._prior_draws(size, rng))
            log_power = np.concatenate([log_power, beta * acquisition.value(blocks[-1])])
            log_mean = float(logsumexp(log_power)) - float(np.log(len(log_power)))
            probability = np.exp(log_power - log_mean) + self._c
            probability /= probability.sum()
            self._effective = 1.0 / float(probability @ probability)
            if self._effective >= _MIN_EFFECTIVE_PER_DRAW * n:
                break
        pool = np.concatenate(blocks)
        # Fewer than n points may have a probability above 0; then draws repeat.
        distinct = int(np.count_nonzero(probability)) >= n
        return np.asarray(pool[rng.choice(len(pool), size=n, replace=not distinct, p=probability)])

    def log_density(self, unit: Array, acquisition: Acquisition) -> Array:
        """Returns log((ε^k / E[ε^k] + c) / (1 + c)) (n,) at points (n, k) of the unit cube."""
        log_power = self._k * acquisition.value(unit) - self._log_mean
        if self._c == 0.0:
            return log_power
        return np.asarray(np.logaddexp(log_power, np.log(self._c)) - np.log1p(self._c))

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        return {"expectation": [self._k, self._log_mean]}

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self._k, self._log_mean = state["expectation"]

    def diagnostics(self) -> dict[str, float]:
        """Returns the effective sample size of the last pool."""
        return {"pool_ess": self._effective}


def build(prior: Prior, seed: int, arguments: RadArguments, schedule: Schedule) -> MixtureSampler:
    """Creates the `rad` sampler."""
    proposer = ResidualDistribution(prior.sample_unit, arguments.c, arguments.size)
    return acquisition_sampler("rad", prior, seed, arguments, proposer, schedule, beta=arguments.k)

"""`pool`: even draws from a scored pool of points, without gradients.

The method scores m points of a scrambled Sobol sequence by w = a^β, and sorts them along a Hilbert curve.
The cumulative weights are a distribution function along the curve. Proposals are its inverse at the points
of a scrambled van der Corput sequence, which continues over all generations. In the limit of a large pool
the proposals follow p a^β exactly, also for categories, plateaus, steps and separate modes, where gradients
are not informative. They are spread as evenly as the target permits, because neighbors on the curve are
neighbors in the cube.

Under constraints, or with a table of points, the pool consists of independent draws of the prior.

References: sampling-importance-resampling: Rubin, "Using the SIR algorithm to simulate posterior
distributions", Bayesian Statistics 3 (1988); evenly, along a Hilbert curve: Gerber and Chopin, "Sequential
quasi Monte Carlo", Journal of the Royal Statistical Society B 77 (2015).
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from melissa_gen.sampling.acquisition.base_acquisition import Acquisition
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.acquisition.feature_regression import COSTLY_FACTOR
from melissa_gen.sampling.adaptive.acquisition_rule import (
    AcquisitionArguments,
    PriorDraws,
    Proposer,
    acquisition_sampler,
)
from melissa_gen.sampling.adaptive.mixture import MixtureSampler
from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.base import State
from melissa_gen.sampling.designs.hilbert_curve import hilbert_order
from melissa_gen.sampling.designs.quasi_random import SobolSequence, even_draws
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["Pool", "PoolArguments", "build", "take_evenly"]

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

    The pool grows until its effective sample size is 4 n, at most to 16 times its initial size. If this is
    not sufficient (a narrow target in many dimensions), the draws are wider than the target, and the
    diagnostic `pool_ess` is small.

    If the acquisition has candidates, they are the first pool after each learning.

    Args:
        prior_draws: Function that draws n points (n, k) of the prior in the unit cube, evenly if it can.
        size: Initial number of points in the pool.
        seed: Seed of the van der Corput sequence.
    """

    exact = True

    def __init__(self, prior_draws: PriorDraws, size: int = 1024, seed: int = 0) -> None:
        self._prior_draws = prior_draws
        self._size = size
        # A Sobol sequence of one axis is a van der Corput sequence.
        self._sequence = SobolSequence(1, int(np.random.default_rng([seed, 2]).integers(2**31)))
        self._effective = float(size)
        self._candidates_used = False

    def fit(
        self, table: EvidenceTable, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> None:
        """Marks the candidates of the acquisition, which are new, as not yet used."""
        self._candidates_used = False

    def draw(
        self, n: int, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> Array:
        """Draws n points (n, k) of the unit cube."""
        sequence = SobolSequence(1, int(rng.integers(2**31)))
        pool, score = self._pool(n, acquisition, beta, rng, None)
        return take_evenly(pool, score, sequence.draw(n)[:, 0])

    def next(
        self, n: int, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> Array:
        """Draws the next n proposals (n, k); they continue one van der Corput sequence over all generations."""
        # The candidates are used once: a second draw from them could repeat a simulation.
        known = None if self._candidates_used else acquisition.candidates
        self._candidates_used = True
        pool, score = self._pool(n, acquisition, beta, rng, known)
        return take_evenly(pool, score, self._sequence.draw(n)[:, 0])

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        return {**self._sequence.state(), "candidates_used": self._candidates_used}

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self._sequence.restore(state)
        self._candidates_used = bool(state["candidates_used"])

    def diagnostics(self) -> dict[str, float]:
        """Returns the effective sample size of the last pool."""
        return {"pool_ess": self._effective}

    def _pool(
        self,
        n: int,
        acquisition: Acquisition,
        beta: float,
        rng: np.random.Generator,
        known: tuple[Array, Array] | None,
    ) -> tuple[Array, Array]:
        """Returns points (m, k) of the prior and β log a there (m,), enough of them for n draws."""
        fewer = COSTLY_FACTOR if acquisition.costly else 1
        size = max(self._size // fewer, 4 * n)
        blocks, scores = [], []
        for turn in range(_MAX_GROWTH):
            if turn == 0 and known is not None:
                more, value = known
            else:
                more = self._prior_draws(size, rng)
                value = acquisition.value(more)
            blocks.append(more)
            scores.append(beta * value)
            score = np.concatenate(scores)
            weight = np.exp(score - score.max())
            self._effective = float(weight.sum() ** 2 / (weight @ weight))
            if self._effective >= _MIN_EFFECTIVE_PER_DRAW * n:
                break
        return np.concatenate(blocks), score


def take_evenly(pool: Array, score: Array, positions: Array) -> Array:
    """Draws points of a pool in proportion to weights, evenly along a Hilbert curve.

    No point is taken twice while others have a weight above 0: the nearest one on the curve replaces it.

    Args:
        pool: (m, k), points of the unit cube.
        score: (m,), logarithms of the weights, up to a constant.
        positions: (n,), numbers in [0, 1), at which the cumulative weights are inverted.

    Returns:
        (n, k), the points.
    """
    order = hilbert_order(pool)
    weight = np.exp(score[order] - score.max())
    edges = np.cumsum(weight)
    places = np.searchsorted(edges, positions * edges[-1], side="right")
    left = weight > 0.0
    last = int(np.flatnonzero(left)[-1])
    for draw, place in enumerate(np.minimum(places, last)):
        places[draw] = place
        if not left[place] and left.any():
            others = np.flatnonzero(left)
            places[draw] = others[np.abs(others - place).argmin()]
        left[places[draw]] = False
    return np.asarray(pool[order[places]])


def build(prior: Prior, seed: int, arguments: PoolArguments, schedule: Schedule) -> MixtureSampler:
    """Creates the `pool` sampler."""
    proposer = Pool(even_draws(prior), arguments.size, seed)
    return acquisition_sampler("pool", prior, seed, arguments, proposer, schedule, arguments.beta)

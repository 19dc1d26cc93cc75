"""`energy`: the energy -β log a(λ), sampled by Hamiltonian Monte Carlo in logit space.

In z = log u / (1 - u) there are no walls, so no step ever leaves the box; the change of variables
adds Σ log u (1 - u) to the log density. Chains begin in the prior and are *tempered*: β grows from 0 in
stages, each as large as keeps half of the chains effective, and between stages the chains are
weighed by a^Δβ, resampled, and moved on. So modes that no chain could cross between keep their
weights. With one leapfrog step this is the Metropolis-adjusted Langevin algorithm.

References: Neal, "MCMC using Hamiltonian dynamics", 2011; Del Moral, Doucet, Jasra, "Sequential Monte
Carlo samplers", 2006 (the tempering).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import expit

from melissa_gen.sampling.acquisition.base_acquisition import Acquisition
from melissa_gen.sampling.adaptive.acquisition_rule import (
    AcquisitionArguments,
    Proposer,
    acquisition_sampler,
    rank_correlation,
)
from melissa_gen.sampling.adaptive.mixture import MixtureSampler
from melissa_gen.sampling.adaptive.twisted import effective_size, systematic
from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["Energy", "EnergyArguments", "build"]

Array = NDArray[np.float64]

_STAGES = 100
_EFFECTIVE = 0.5
# The acceptance that is best for HMC lies near 0.65, for Langevin steps near 0.57.
_ACCEPTANCE = 0.65


class EnergyArguments(AcquisitionArguments):
    """Arguments of `energy`."""

    leapfrog: int = Field(6, ge=1, le=100, description="leapfrog steps; 1 is Langevin")
    moves: int = Field(3, ge=1, le=100, description="trajectories at each stage of tempering")
    final_moves: int = Field(10, ge=1, le=1000, description="trajectories at the full β")
    chains: int = Field(256, ge=16, le=100_000, description="fewest chains; at least 2 per point")


class _Chains(NamedTuple):
    """Places z (n, k), log a there, and the log of dλ/dz, with both gradients in z."""

    z: Array
    log_a: Array
    volume: Array
    slope_a: Array
    slope_volume: Array

    def log_density(self, beta: float) -> Array:
        return beta * self.log_a + self.volume

    def gradient(self, beta: float) -> Array:
        return beta * self.slope_a + self.slope_volume

    def rows(self, index: NDArray[np.int64]) -> "_Chains":
        return _Chains(*(part[index] for part in self))


class Energy(Proposer):
    """Proposer of `energy`, exact in the limit of many moves.

    Args:
        dimension: axes k of the unit cube.
        leapfrog: leapfrog steps of a trajectory.
        moves: trajectories at each stage of tempering.
        final_moves: trajectories at the full β.
        chains: fewest chains.
    """

    exact = True

    def __init__(
        self,
        dimension: int,
        leapfrog: int = 6,
        moves: int = 3,
        final_moves: int = 10,
        chains: int = 256,
    ) -> None:
        self._dimension = dimension
        self._leapfrog = leapfrog
        self._moves = moves
        self._final_moves = final_moves
        self._chains = chains
        self._numbers = {"acceptance": 1.0, "stages": 0.0, "memory": 0.0, "resampled": 0.0}

    def draw(
        self, n: int, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> Array:
        """Draws n points (n, k) of the unit cube."""
        u = rng.random((max(self._chains, 2 * n), self._dimension))
        chains = _evaluate(np.log(u) - np.log1p(-u), acquisition)
        width, reached, stages, resampled, acceptance = 1.0, 0.0, 0, 0, 1.0
        while reached < beta and stages < _STAGES:
            rise = _largest_rise(chains.log_a, beta - reached)
            weight = rise * chains.log_a
            if effective_size(weight) < 0.99 * len(weight):
                chains = chains.rows(systematic(weight, len(weight), rng))
                resampled += 1
            reached = beta if stages == _STAGES - 1 else reached + rise
            stages += 1
            before = chains.log_a
            for _ in range(self._moves if reached < beta else self._final_moves):
                chains, acceptance = self._move(chains, acquisition, reached, width, rng)
                # One rate for the width of the whole population keeps each chain's move exact.
                width *= float(np.exp(0.5 * (acceptance - _ACCEPTANCE)))
                width = min(width, 2.0)
        if stages > 0:
            self._numbers = {
                "acceptance": acceptance,
                "stages": float(stages),
                "memory": rank_correlation(before, chains.log_a),
                "resampled": float(resampled),
            }
        kept = rng.permutation(len(chains.z))[:n]
        return np.asarray(expit(chains.z[kept]))

    def _move(
        self,
        chains: _Chains,
        acquisition: Acquisition,
        beta: float,
        width: float,
        rng: np.random.Generator,
    ) -> tuple[_Chains, float]:
        """One trajectory of every chain; the share of accepted ones comes with it.

        The mass of each axis is 1 / variance of the chains there, and the step shrinks with the
        fourth root of the dimension, which keeps the acceptance.
        """
        scale = np.maximum(chains.z.std(axis=0), 1e-3)
        step = width * scale / max(self._dimension, 1) ** 0.25
        jitter = rng.uniform(0.8, 1.2)
        step = jitter * step
        momentum = rng.standard_normal(chains.z.shape)
        start = chains.log_density(beta) - 0.5 * (momentum**2).sum(axis=1)
        now = chains
        for _ in range(self._leapfrog):
            momentum = momentum + 0.5 * step * now.gradient(beta)
            now = _evaluate(now.z + step * momentum, acquisition)
            momentum = momentum + 0.5 * step * now.gradient(beta)
        with np.errstate(over="ignore", invalid="ignore"):
            end = now.log_density(beta) - 0.5 * (momentum**2).sum(axis=1)
            taken = np.log(rng.random(len(end))) < end - start  # never where that is not a number
        index = taken.astype(np.int64)
        both = [np.stack(pair) for pair in zip(chains, now, strict=True)]
        place = np.arange(len(end))
        return _Chains(*(part[index, place] for part in both)), float(taken.mean())

    def diagnostics(self) -> dict[str, float]:
        """Of the last draw.

        `acceptance` of the last trajectories; `stages` of tempering; `memory`, the rank correlation
        of log a before and after the moves at the full β: near 0 where the chains mix; `resampled`.
        """
        return dict(self._numbers)


def _evaluate(z: Array, acquisition: Acquisition) -> _Chains:
    z = np.clip(z, -36.0, 36.0)  # where u is still above 0 in double precision
    u = expit(z)
    log_a, slope = acquisition.value_and_gradient(u)
    volume = -(np.logaddexp(0.0, z) + np.logaddexp(0.0, -z)).sum(axis=1)
    return _Chains(z, log_a, np.asarray(volume), slope * u * expit(-z), 1.0 - 2.0 * u)


def _largest_rise(log_a: Array, left: float) -> float:
    """The largest Δβ up to `left` at which weights a^Δβ leave half of the chains effective."""
    if effective_size(left * log_a) >= _EFFECTIVE * len(log_a):
        return left
    low, high = 0.0, left
    for _ in range(30):
        middle = 0.5 * (low + high)
        if effective_size(middle * log_a) >= _EFFECTIVE * len(log_a):
            low = middle
        else:
            high = middle
    return low if low > 0.0 else high


def build(
    prior: Prior, seed: int, arguments: EnergyArguments, schedule: Schedule
) -> MixtureSampler:
    """The `energy` sampler."""
    proposer = Energy(
        prior.unit_dimension,
        arguments.leapfrog,
        arguments.moves,
        arguments.final_moves,
        arguments.chains,
    )
    return acquisition_sampler("energy", prior, seed, arguments, proposer, schedule, arguments.beta)

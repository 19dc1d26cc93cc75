"""`energy`: Hamiltonian Monte Carlo on the energy -β log a(λ) in logit space.

In the coordinates z = log(u / (1 - u)) the box has no boundary, so that no step leaves it. The change
of variables adds Σ log(u (1 - u)) to the log density. The chains start as draws of the prior and are
*tempered*: β increases from 0 in stages. Each stage is the largest one that keeps the effective
sample size at half the number of chains. In each stage the chains are weighted by a^Δβ, resampled,
and moved by some trajectories. Separate modes therefore keep their weights, although no chain
crosses between them. With one leapfrog step per trajectory this is the Metropolis-adjusted Langevin
algorithm. The forces may be gradients of an interpolation of log a: a trajectory is accepted or rejected by
log a itself, which is exact for any forces.

References: Neal, "MCMC using Hamiltonian dynamics", Handbook of Markov Chain Monte Carlo (2011);
tempering: Del Moral, Doucet, Jasra, "Sequential Monte Carlo samplers", Journal of the Royal
Statistical Society B 68 (2006).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from melissa_gen.sampling.acquisition.base_acquisition import Acquisition, effective_size
from melissa_gen.sampling.acquisition.skill import rank_correlation
from melissa_gen.sampling.adaptive.acquisition_rule import (
    AcquisitionArguments,
    Proposer,
    acquisition_sampler,
)
from melissa_gen.sampling.adaptive.mixture import MixtureSampler
from melissa_gen.sampling.adaptive.twisted import systematic
from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["Energy", "EnergyArguments", "build"]

Array = NDArray[np.float64]

_MAX_STAGES = 100
_MIN_EFFECTIVE_SHARE = 0.5
# The optimal acceptance rate is about 0.65 for HMC and 0.57 for Langevin steps.
_TARGET_ACCEPTANCE = 0.65


class EnergyArguments(AcquisitionArguments):
    """Arguments of `energy`."""

    leapfrog: int = Field(
        6, ge=1, le=100, description="leapfrog steps per trajectory; 1 is Langevin"
    )
    moves: int = Field(3, ge=1, le=100, description="trajectories in each tempering stage")
    final_moves: int = Field(
        10, ge=1, le=1000, description="trajectories in the last stage, at the full β"
    )
    chains: int = Field(
        256,
        ge=16,
        le=100_000,
        description="minimum number of chains; at least 2 per point are used",
    )


class _Chains(NamedTuple):
    """Positions z (n, k), log a (n,), the log Jacobian determinant of u(z) (n,), and their gradients in z (n, k)."""

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
    """Proposer of the method `energy`; exact in the limit of many trajectories.

    Args:
        dimension: Number of axes k of the unit cube.
        leapfrog: Leapfrog steps per trajectory.
        moves: Trajectories in each tempering stage.
        final_moves: Trajectories in the last stage, at the full β.
        chains: Minimum number of chains; at least two per point are used.
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
        self._last_draw = {"acceptance": 1.0, "stages": 0.0, "memory": 0.0, "resampled": 0.0}

    def draw(
        self, n: int, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> Array:
        """Draws n points (n, k) of the unit cube."""
        from scipy.special import expit, logit

        u = rng.random((max(self._chains, 2 * n), self._dimension))
        chains = _evaluate(logit(u), acquisition)
        width, reached, stages, resampled, acceptance = 1.0, 0.0, 0, 0, 1.0
        while reached < beta and stages < _MAX_STAGES:
            increment = _largest_increment(chains.log_a, beta - reached)
            weight = increment * chains.log_a
            if effective_size(weight) < 0.99 * len(weight):
                chains = chains.rows(systematic(weight, len(weight), rng))
                resampled += 1
            reached = beta if stages == _MAX_STAGES - 1 else reached + increment
            stages += 1
            before = chains.log_a
            for _ in range(self._moves if reached < beta else self._final_moves):
                chains, acceptance = self._move(chains, acquisition, reached, width, rng)
                # The step width is adapted for all chains together, so that no chain's step depends on
                # its own state.
                width *= float(np.exp(0.5 * (acceptance - _TARGET_ACCEPTANCE)))
                width = min(width, 2.0)
        if stages > 0:
            self._last_draw = {
                "acceptance": acceptance,
                "stages": float(stages),
                "memory": rank_correlation(before, chains.log_a),
                "resampled": float(resampled),
            }
        kept = rng.permutation(len(chains.z))[:n]
        return np.asarray(expit(chains.z[kept]))

    def moved(
        self, unit: Array, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> Array:
        """Moves points (n, k) of the unit cube by the trajectories of the last stage, which preserve p a^β.

        The more points, the better the steps are adapted to the target.
        """
        from scipy.special import expit, logit

        chains, width = _evaluate(logit(unit), acquisition), 1.0
        for _ in range(self._final_moves):
            chains, acceptance = self._move(chains, acquisition, beta, width, rng)
            width = min(width * float(np.exp(0.5 * (acceptance - _TARGET_ACCEPTANCE))), 2.0)
            self._last_draw["acceptance"] = acceptance
        return np.asarray(expit(chains.z))

    def _move(
        self,
        chains: _Chains,
        acquisition: Acquisition,
        beta: float,
        width: float,
        rng: np.random.Generator,
    ) -> tuple[_Chains, float]:
        """Moves every chain by one trajectory; returns the chains and the acceptance rate.

        The mass of each axis is the inverse variance of the chains along it. The step decreases with
        the fourth root of the dimension, which keeps the acceptance rate constant.
        """
        scale = np.maximum(chains.z.std(axis=0), 1e-3)
        step = width * scale / max(self._dimension, 1) ** 0.25
        jitter = rng.uniform(0.8, 1.2)
        step = jitter * step
        momentum = rng.standard_normal(chains.z.shape)
        start = chains.log_density(beta) - 0.5 * (momentum**2).sum(axis=1)
        moved = chains
        for turn in range(1, self._leapfrog + 1):
            momentum = momentum + 0.5 * step * moved.gradient(beta)
            end = turn == self._leapfrog
            moved = _evaluate(moved.z + step * momentum, acquisition, with_value=end)
            momentum = momentum + 0.5 * step * moved.gradient(beta)
        with np.errstate(over="ignore", invalid="ignore"):
            change = moved.log_density(beta) - 0.5 * (momentum**2).sum(axis=1) - start
            # A trajectory that has diverged to NaN is rejected, since the comparison is false.
            accepted = np.log(rng.random(len(change))) < change
        index = accepted.astype(np.int64)
        both = [np.stack(pair) for pair in zip(chains, moved, strict=True)]
        chain = np.arange(len(change))
        return _Chains(*(part[index, chain] for part in both)), float(accepted.mean())

    def diagnostics(self) -> dict[str, float]:
        """Returns named finite numbers of the last draw.

        `acceptance` is the acceptance rate of the last trajectories, `stages` the number of tempering
        stages, `resampled` the number of resamplings. `memory` is the rank correlation of log a
        before and after the trajectories at the full β; it is near 0 if the chains mix.
        """
        return dict(self._last_draw)


def _evaluate(z: Array, acquisition: Acquisition, with_value: bool = True) -> _Chains:
    """Evaluates chains at z (n, k); without the value, log a is that of the gradient, which may be interpolated."""
    from scipy.special import expit

    # Within these bounds u is between 0 and 1 in double precision.
    z = np.clip(z, -36.0, 36.0)
    u = expit(z)
    log_a, slope = acquisition.value_and_gradient(u)
    if with_value:
        log_a = acquisition.value(u)
    volume = -(np.logaddexp(0.0, z) + np.logaddexp(0.0, -z)).sum(axis=1)
    return _Chains(z, log_a, np.asarray(volume), slope * u * expit(-z), 1.0 - 2.0 * u)


def _largest_increment(log_a: Array, left: float) -> float:
    """Returns the largest Δβ up to `left` for which the weights a^Δβ keep half of the effective sample size."""
    if effective_size(left * log_a) >= _MIN_EFFECTIVE_SHARE * len(log_a):
        return left
    low, high = 0.0, left
    for _ in range(30):
        middle = 0.5 * (low + high)
        if effective_size(middle * log_a) >= _MIN_EFFECTIVE_SHARE * len(log_a):
            low = middle
        else:
            high = middle
    return low if low > 0.0 else high


def build(
    prior: Prior, seed: int, arguments: EnergyArguments, schedule: Schedule
) -> MixtureSampler:
    """Creates the `energy` sampler."""
    proposer = Energy(
        prior.unit_dimension,
        arguments.leapfrog,
        arguments.moves,
        arguments.final_moves,
        arguments.chains,
    )
    return acquisition_sampler("energy", prior, seed, arguments, proposer, schedule, arguments.beta)

"""`adaptive`: the exact even pool or corrected guidance by gradients, chosen by measurement, with a gate.

Each time the acquisition has learned, one of two proposers is chosen.

- The even pool of the method `pool`. It is exact for any a(λ), also for categories, plateaus and steps. It
  is chosen up to ten parameters, with a discrete parameter, with a table of points, and wherever the
  effective sample size of the candidates, weighted by a^β, is at least 128.
- Otherwise the target is so narrow that few points of a pool are in it. Points of the probability flow of
  `diffusion_posterior` are then moved by Hamiltonian Monte Carlo, whose acceptance test uses the true a(λ).
  The concentration of 64 such points is measured: their mean of log a, relative to its mean over the prior,
  divided by what p a^β has according to the candidates. If it is below 0.9, the gradients are misleading,
  and the pool is used.

The diagnostic `gradients` is 1 if the flow was chosen. `concentration` is that of the last proposals: 1 is
right, and 0 is no better than the prior. By default, the share of adaptive points follows the skill of the
acquisition (`gate`); without skill, the points are those of `sobol`.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from melissa_gen.distributions.discrete import Categorical, Integer
from melissa_gen.sampling.acquisition.base_acquisition import Acquisition, effective_size
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.adaptive.acquisition_rule import (
    PriorDraws,
    Proposer,
    acquisition_sampler,
)
from melissa_gen.sampling.adaptive.diffusion_posterior import DiffusionPosterior
from melissa_gen.sampling.adaptive.energy import Energy
from melissa_gen.sampling.adaptive.mixture import MixtureSampler
from melissa_gen.sampling.adaptive.pool import Pool, PoolArguments
from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.base import State, part_of
from melissa_gen.sampling.designs.quasi_random import even_draws
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["AdaptiveArguments", "CorrectedFlow", "Measured", "build"]

Array = NDArray[np.float64]

_POOL_DIMENSION = 10
_POOL_EFFECTIVE = 128.0
_CANDIDATES = 1024
# Chains that adapt the steps of the correction, and points by which the flow is measured.
_CHAINS = 64
_MIN_CONCENTRATION = 0.9


class AdaptiveArguments(PoolArguments):
    """Arguments of `adaptive`."""

    gate: bool = Field(
        True,
        description="multiply the adaptive share by a gate that is 0 until the acquisition predicts the measured "
        "difficulties",
    )


class CorrectedFlow(Proposer):
    """Points of the probability flow, moved by Hamiltonian Monte Carlo on the true acquisition.

    Args:
        dimension: Number of axes k of the unit cube.
        seed: Seed of the starting points of the flow.
    """

    # The chains start from an approximation, and are not run until they have forgotten it.
    exact = False

    def __init__(self, dimension: int, seed: int = 0) -> None:
        self._flow = DiffusionPosterior(dimension, seed=seed)
        self._chains = Energy(dimension)

    def draw(
        self, n: int, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> Array:
        """Draws n points (n, k) of the unit cube."""
        starts = self._flow.draw(max(n, _CHAINS), acquisition, beta, rng)
        return self._chains.moved(starts, acquisition, beta, rng)[:n]

    def next(
        self, n: int, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> Array:
        """Draws the next n proposals (n, k); their starting points continue one sequence over all generations."""
        starts = self._flow.next(n, acquisition, beta, rng)
        others = self._flow.draw(max(_CHAINS - n, 0), acquisition, beta, rng)
        both = np.concatenate([starts, others])
        return self._chains.moved(both, acquisition, beta, rng)[:n]

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        return self._flow.state()

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self._flow.restore(state)


class Measured(Proposer):
    """Proposer of the method `adaptive`: the pool or the flow, chosen at each learning.

    Args:
        prior_draws: Function that draws n points (n, k) of the prior in the unit cube, evenly if it can.
        dimension: Number of axes k of the unit cube.
        size: Initial number of points in the pool.
        seed: Seed of both proposers.
        always_pool: Whether gradients are never used, because a parameter is discrete.
    """

    exact = True

    def __init__(
        self,
        prior_draws: PriorDraws,
        dimension: int,
        size: int = 1024,
        seed: int = 0,
        always_pool: bool = False,
    ) -> None:
        self._prior_draws = prior_draws
        self._always_pool = always_pool or dimension <= _POOL_DIMENSION
        self._pool = Pool(prior_draws, size, seed)
        self._flow = CorrectedFlow(dimension, seed)
        # Means of log a: over the prior, and over p a^β.
        self._base, self._wanted = 0.0, 0.0
        self._concentration = 1.0

    def fit(
        self, table: EvidenceTable, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> None:
        """Chooses the proposer, from the candidates and from a trial of the flow."""
        self._pool.fit(table, acquisition, beta, rng)
        known = acquisition.candidates
        values = known[1] if known else acquisition.value(self._prior_draws(_CANDIDATES, rng))
        weight = np.exp(beta * (values - values.max()))
        self._base, self._wanted = float(values.mean()), float(weight @ values / weight.sum())
        self.exact = self._always_pool or effective_size(beta * values) >= _POOL_EFFECTIVE
        if not self.exact:
            trial = self._flow.draw(_CHAINS, acquisition, beta, rng)
            reached = self._relative(float(acquisition.value(trial).mean()))
            self.exact = reached < _MIN_CONCENTRATION

    def draw(
        self, n: int, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> Array:
        """Draws n points (n, k) of the unit cube."""
        return self._chosen.draw(n, acquisition, beta, rng)

    def next(
        self, n: int, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> Array:
        """Draws the next n proposals (n, k), and measures their concentration."""
        unit = self._chosen.next(n, acquisition, beta, rng)
        self._concentration = self._relative(float(acquisition.value(unit).mean()))
        return unit

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        return {
            "means": [self._base, self._wanted, self._concentration],
            "pooled": self.exact,
            **{f"pool.{key}": value for key, value in self._pool.state().items()},
            **{f"flow.{key}": value for key, value in self._flow.state().items()},
        }

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self._base, self._wanted, self._concentration = state["means"]
        self.exact = bool(state["pooled"])
        self._pool.restore(part_of(state, "pool."))
        self._flow.restore(part_of(state, "flow."))

    def diagnostics(self) -> dict[str, float]:
        """Returns whether the flow was chosen, and the concentration of the last proposals."""
        return {"gradients": float(not self.exact), "concentration": self._concentration}

    @property
    def _chosen(self) -> Proposer:
        return self._pool if self.exact else self._flow

    def _relative(self, mean: float) -> float:
        """Returns a mean of log a relative to that of p a^β; 1 where there is no difference to the prior."""
        wanted = self._wanted - self._base
        return (mean - self._base) / wanted if wanted > 1e-9 else 1.0


def build(
    prior: Prior, seed: int, arguments: AdaptiveArguments, schedule: Schedule
) -> MixtureSampler:
    """Creates the `adaptive` sampler."""
    discrete = any(isinstance(one, Integer | Categorical) for one in prior.distributions.values())
    proposer = Measured(
        even_draws(prior),
        prior.unit_dimension,
        arguments.size,
        seed,
        always_pool=discrete or prior.tabulated,
    )
    # The exponent of the flow is not calibrated: its draws are corrected by the Metropolis test.
    return acquisition_sampler(
        "adaptive", prior, seed, arguments, proposer, schedule, arguments.beta, calibrate=False
    )

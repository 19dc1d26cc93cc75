"""`halton`: a scrambled Halton sequence (scipy.stats.qmc), continued where it was on a restart.

Axis i counts in the i-th prime base, digits reversed. Balanced for any number of points, but the
large primes of many dimensions need scrambling, and very many points, to fill evenly.

Reference: Halton, "On the efficiency of certain quasi-random sequences of points in evaluating
multi-dimensional integrals", Numerische Mathematik 2 (1960).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.arguments import Arguments
from melissa_gen.sampling.designs.design_sampler import DesignSampler
from melissa_gen.sampling.designs.quasi_random import QuasiRandom
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["HaltonArguments", "build"]


class HaltonArguments(Arguments):
    """Arguments of `halton`."""

    scramble: bool = Field(True, description="permute the digits at random, or leave them bare")


class _Halton(QuasiRandom):
    def _create_engine(self, dimension: int, seed: int) -> Any:
        from scipy.stats import qmc  # scipy.stats takes 50 MB: only where it is used

        return qmc.Halton(dimension, scramble=self._scramble, seed=np.random.default_rng(seed))

    def draw(self, n: int, generation: int) -> NDArray[np.float64]:
        if n == 0:
            return np.empty((0, self._dimension))
        return np.asarray(self._engine.random(n)[:, : self._dimension])


def build(prior: Prior, seed: int, arguments: HaltonArguments, schedule: Schedule) -> DesignSampler:
    """The `halton` sampler."""
    return DesignSampler("halton", prior, _Halton(prior.unit_dimension, seed, arguments.scramble))

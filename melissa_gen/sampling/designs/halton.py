"""`halton`: a scrambled Halton sequence (scipy.stats.qmc), continued after a restart.

The coordinate on axis i is the number of the point in the i-th prime base with its digits reversed.
The sequence is balanced for any number of points. In many dimensions the bases are large; the sequence
then needs scrambling and many points to fill the cube evenly.

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

    scramble: bool = Field(True, description="permute the digits at random")


class _Halton(QuasiRandom):
    def _create_engine(self, dimension: int, seed: int) -> Any:
        # Importing scipy.stats takes 50 MB, so it is imported only where it is used.
        from scipy.stats import qmc

        return qmc.Halton(dimension, scramble=self._scramble, seed=np.random.default_rng(seed))

    def draw(self, n: int, generation: int) -> NDArray[np.float64]:
        if n == 0:
            return np.empty((0, self._dimension))
        return np.asarray(self._engine.random(n)[:, : self._dimension])


def build(prior: Prior, seed: int, arguments: HaltonArguments, schedule: Schedule) -> DesignSampler:
    """Creates the `halton` sampler."""
    return DesignSampler("halton", prior, _Halton(prior.unit_dimension, seed, arguments.scramble))

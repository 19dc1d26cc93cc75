"""`uniform_resampled`: new uniform draws in each generation; the control of adaptive methods.

The points of a generation depend only on the seed and the number of the generation, as if a new
design were drawn each time. An adaptive method that is not better than this control has no benefit.
"""

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.arguments import Arguments
from melissa_gen.sampling.base import State
from melissa_gen.sampling.designs.design_sampler import DesignSampler, PointSequence
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["UniformResampledArguments", "build"]


class UniformResampledArguments(Arguments):
    """Arguments of `uniform_resampled`, which has none."""


class _Resampled(PointSequence):
    def __init__(self, prior: Prior, seed: int) -> None:
        self._prior = prior
        self._seed = seed
        self._generation = 0
        self._rng = np.random.default_rng([seed, 0])

    def draw(self, n: int, generation: int) -> NDArray[np.float64]:
        if generation != self._generation:
            self._generation = generation
            self._rng = np.random.default_rng([self._seed, generation])
        return self._prior.sample_unit(n, self._rng)

    def state(self) -> State:
        return {
            "seed": self._seed,
            "generation": self._generation,
            "rng": self._rng.bit_generator.state,
        }

    def restore(self, state: State) -> None:
        self._seed = state["seed"]
        self._generation = state["generation"]
        self._rng.bit_generator.state = state["rng"]


def build(
    prior: Prior, seed: int, arguments: UniformResampledArguments, schedule: Schedule
) -> DesignSampler:
    """Creates the `uniform_resampled` sampler."""
    return DesignSampler("uniform_resampled", prior, _Resampled(prior, seed))

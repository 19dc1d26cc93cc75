"""`uniform`: independent draws from the prior, which is uniform in the unit cube; the baseline."""

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.arguments import Arguments
from melissa_gen.sampling.base import State
from melissa_gen.sampling.designs.design_sampler import DesignSampler, PointSequence
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["UniformArguments", "UniformSequence", "build"]


class UniformArguments(Arguments):
    """Arguments of `uniform`, which has none."""


class UniformSequence(PointSequence):
    """Independent draws from the prior, as points of the unit cube.

    Args:
        prior: Prior distribution p(λ) of the parameters.
        seed: Seed of the random generator.
    """

    def __init__(self, prior: Prior, seed: int) -> None:
        self._prior = prior
        self._rng = np.random.default_rng(seed)

    def draw(self, n: int, generation: int) -> NDArray[np.float64]:
        """Draws n points (n, k) of the unit cube."""
        return self._prior.sample_unit(n, self._rng)

    def state(self) -> State:
        """Returns the state of the random generator."""
        return {"rng": self._rng.bit_generator.state}

    def restore(self, state: State) -> None:
        """Restores the state of the random generator."""
        self._rng.bit_generator.state = state["rng"]


def build(
    prior: Prior, seed: int, arguments: UniformArguments, schedule: Schedule
) -> DesignSampler:
    """Creates the `uniform` sampler."""
    return DesignSampler("uniform", prior, UniformSequence(prior, seed))

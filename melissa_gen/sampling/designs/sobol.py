"""`sobol`: a scrambled Sobol sequence, continued after a restart.

The sequence is best balanced if the number of points is a power of two.

Reference: Sobol', "On the distribution of points in a cube and the approximate evaluation of
integrals", USSR Computational Mathematics and Mathematical Physics 7 (1967).
"""

from pydantic import Field

from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.arguments import Arguments
from melissa_gen.sampling.designs.design_sampler import DesignSampler
from melissa_gen.sampling.designs.quasi_random import SobolSequence
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["SobolArguments", "build"]


class SobolArguments(Arguments):
    """Arguments of `sobol`."""

    scramble: bool = Field(
        True, description="scramble the sequence at random, which makes it unbiased"
    )


def build(prior: Prior, seed: int, arguments: SobolArguments, schedule: Schedule) -> DesignSampler:
    """Creates the `sobol` sampler."""
    return DesignSampler(
        "sobol", prior, SobolSequence(prior.unit_dimension, seed, arguments.scramble)
    )

"""`rar_d`: residual-based adaptive refinement with distribution; `rad` with k = 2 and c = 0.

In the paper, RAR-D *adds* points drawn from p ∝ ε^k / E[ε^k] + c, whereas RAD replaces all points. A
completed simulation is never discarded here, so that the two methods only differ in k and c. The
scripts published with the paper pass k and c in swapped order. This makes k = 0 and c = 2, which is
the uniform distribution.

Reference: Wu, Zhu, Tan, Kartha, Lu, arXiv 2207.10289, algorithm 3.
"""

from pydantic import Field

from melissa_gen.sampling.adaptive.acquisition_rule import acquisition_sampler
from melissa_gen.sampling.adaptive.mixture import MixtureSampler
from melissa_gen.sampling.adaptive.rad import RadArguments, ResidualDistribution
from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["RarDArguments", "build"]


class RarDArguments(RadArguments):
    """Arguments of `rar_d`."""

    k: float = Field(2.0, ge=0.0, le=20.0, description="exponent k of the residual")
    c: float = Field(0.0, ge=0.0, le=1e6, description="constant c, the weight of uniform points")


def build(prior: Prior, seed: int, arguments: RarDArguments, schedule: Schedule) -> MixtureSampler:
    """Creates the `rar_d` sampler."""
    proposer = ResidualDistribution(prior.sample_unit, arguments.c, arguments.size)
    return acquisition_sampler(
        "rar_d", prior, seed, arguments, proposer, schedule, beta=arguments.k
    )

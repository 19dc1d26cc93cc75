"""`rar_d`: residual-based adaptive refinement with distribution, `rad` with k = 2 and c = 0.

Wu, Zhu, Tan, Kartha, Lu, arXiv 2207.10289, algorithm 3: new points are *added*, drawn with
p ∝ ε^k / E[ε^k] + c, where RAD draws all of its points anew. A simulation once run is kept in
either case, so what is left of the difference is the pair (k, c). Beware: scripts that go with the
paper pass the two in swapped order, which makes k = 0, c = 2: the uniform distribution.
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
    c: float = Field(0.0, ge=0.0, le=1e6, description="constant c: the weight of uniform points")


def build(prior: Prior, seed: int, arguments: RarDArguments, schedule: Schedule) -> MixtureSampler:
    """The `rar_d` sampler."""
    proposer = ResidualDistribution(prior.sample_unit, arguments.c, arguments.size)
    return acquisition_sampler(
        "rar_d", prior, seed, arguments, proposer, schedule, beta=arguments.k
    )

"""`phased`: the classical loop of generate, train, score, generate more, as a sampler.

The sampler does not learn during a phase. When evidence on `phase` new simulations has arrived since the
last learning (completed or failed), the acquisition is refitted and the next phase is drawn from
p a^β by importance resampling from a uniform pool, like `pool`. The first phase is the prior's. The
full adaptive share is reached with the second phase, since there are only few of them.

It is the baseline that online training replaces. The original also stops the solvers between phases;
a sampler must not: until a phase has been scored, it continues to draw for the previous one.

Reference: OSTI 1923172.
"""

from pydantic import Field

from melissa_gen.sampling.adaptive.acquisition_rule import acquisition_sampler
from melissa_gen.sampling.adaptive.mixture import MixtureSampler
from melissa_gen.sampling.adaptive.pool import Pool, PoolArguments
from melissa_gen.sampling.adaptive_share import Ramp
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["PhasedArguments", "build"]


class PhasedArguments(PoolArguments):
    """Arguments of `phased`."""

    phase: int = Field(50, ge=1, le=1_000_000, description="simulations of a phase")


def build(prior: Prior, seed: int, arguments: PhasedArguments, ramp: Ramp) -> MixtureSampler:
    """The `phased` sampler."""
    return acquisition_sampler(
        "phased",
        prior,
        seed,
        arguments,
        Pool(prior.unit_dimension, arguments.size, prior.sample_unit),
        Ramp(ramp.max_share, 1),
        arguments.beta,
        phase=arguments.phase,
    )

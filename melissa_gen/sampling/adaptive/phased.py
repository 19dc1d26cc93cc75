"""`phased`: the classical loop of generating, training, scoring and generating more data.

The sampler does not learn during a phase. When evidence on `phase` new simulations (completed or
failed) has arrived since the last learning, the acquisition is refitted, and the next phase is drawn
from p a^β by importance resampling, as in `pool`. The first phase is drawn from the prior. The full
adaptive share is reached in the second phase, because there are only few phases.

The method is the baseline that online training replaces. The original also stops the solvers between
phases. Here the solvers continue: until a phase has been scored, its points are drawn as in the
previous phase.

Reference: OSTI 1923172.
"""

from pydantic import Field

from melissa_gen.sampling.adaptive.acquisition_rule import acquisition_sampler
from melissa_gen.sampling.adaptive.mixture import MixtureSampler
from melissa_gen.sampling.adaptive.pool import Pool, PoolArguments
from melissa_gen.sampling.adaptive_share import Ramp
from melissa_gen.sampling.designs.quasi_random import even_draws
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["PhasedArguments", "build"]


class PhasedArguments(PoolArguments):
    """Arguments of `phased`."""

    phase: int = Field(50, ge=1, le=1_000_000, description="number of simulations in a phase")


def build(prior: Prior, seed: int, arguments: PhasedArguments, ramp: Ramp) -> MixtureSampler:
    """Creates the `phased` sampler."""
    return acquisition_sampler(
        "phased",
        prior,
        seed,
        arguments,
        Pool(even_draws(prior), arguments.size, seed),
        Ramp(ramp.max_share, 1),
        arguments.beta,
        phase=arguments.phase,
    )

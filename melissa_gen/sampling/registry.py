"""The methods by name, and how a sampler is made from a study's `sampler` section."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from melissa_gen.errors import StudyError, nearest
from melissa_gen.sampling.adaptive import (
    breed,
    conditional_diffusion,
    diffusion_posterior,
    diffusion_prior,
    energy,
    external,
    flow,
    gan,
    joint,
    phased,
    pool,
    r3,
    rad,
    rar_d,
    twisted,
)
from melissa_gen.sampling.adaptive.mixture import MAX_SHARE, Ramp
from melissa_gen.sampling.arguments import Arguments, parse_arguments
from melissa_gen.sampling.base import Sampler
from melissa_gen.sampling.designs import (
    grid,
    halton,
    lhs,
    sobol,
    table,
    uniform,
    uniform_resampled,
)
from melissa_gen.sampling.prior.priors import Prior

__all__ = ["METHODS", "Method", "check_arguments", "create"]


@dataclass(frozen=True)
class Method:
    """One method: its arguments' model, and what builds it from (prior, seed, arguments, ramp)."""

    arguments: type[Arguments]
    build: Callable[[Prior, int, Any, Ramp], Sampler]

    @property
    def summary(self) -> str:
        """What the arguments' model says of itself."""
        return self.arguments.__doc__ or ""


METHODS: dict[str, Method] = {
    "uniform": Method(uniform.UniformArguments, lambda p, s, a, _: uniform.build(p, s, a)),
    "sobol": Method(sobol.SobolArguments, lambda p, s, a, _: sobol.build(p, s, a)),
    "halton": Method(halton.HaltonArguments, lambda p, s, a, _: halton.build(p, s, a)),
    "lhs": Method(lhs.LhsArguments, lambda p, s, a, _: lhs.build(p, s, a)),
    "grid": Method(grid.GridArguments, lambda p, s, a, _: grid.build(p, s, a)),
    "table": Method(table.TableArguments, lambda p, s, a, _: table.build(p, s, a)),
    "uniform_resampled": Method(
        uniform_resampled.UniformResampledArguments,
        lambda p, s, a, _: uniform_resampled.build(p, s, a),
    ),
    "pool": Method(pool.PoolArguments, pool.build),
    "rad": Method(rad.RadArguments, rad.build),
    "rar_d": Method(rar_d.RarDArguments, rar_d.build),
    "r3": Method(r3.R3Arguments, lambda p, s, a, _: r3.build(p, s, a)),
    "breed": Method(breed.BreedArguments, breed.build),
    "diffusion_posterior": Method(
        diffusion_posterior.DiffusionPosteriorArguments, diffusion_posterior.build
    ),
    "twisted": Method(twisted.TwistedArguments, twisted.build),
    "diffusion_prior": Method(diffusion_prior.DiffusionPriorArguments, diffusion_prior.build),
    "conditional_diffusion": Method(
        conditional_diffusion.ConditionalDiffusionArguments, conditional_diffusion.build
    ),
    "joint": Method(joint.JointArguments, joint.build),
    "flow": Method(flow.FlowArguments, flow.build),
    "gan": Method(gan.GanArguments, gan.build),
    "phased": Method(phased.PhasedArguments, phased.build),
    "energy": Method(energy.EnergyArguments, energy.build),
    "external": Method(external.ExternalArguments, external.build),
}


# Methods that need nothing of the prior but draws: what works where it is known only by points.
FROM_POINTS = (
    "uniform",
    "uniform_resampled",
    "table",
    "r3",
    "pool",
    "phased",
    "rad",
    "rar_d",
    "diffusion_prior",
)


def check_arguments(
    method: str, arguments: Mapping[str, Any] | None = None, *, tabulated: bool = False
) -> Arguments:
    """Checks a method's name and arguments without building it; returns them with defaults.

    Args:
        method: its name.
        arguments: its arguments.
        tabulated: whether the prior is known only by a table of points.

    Raises:
        StudyError: an unknown method or argument, or an illegal value; a method that needs more
            of the prior than a table can give.
    """
    if method not in METHODS:
        msg = (
            f"sampler.method is '{method}', legal are {', '.join(METHODS)}"
            f"{nearest(str(method), METHODS)}."
        )
        raise StudyError(msg)
    if tabulated and method not in FROM_POINTS:
        msg = (
            f"sampler.method is '{method}', which needs more of the prior than feasible_points; "
            f"legal with them are {', '.join(FROM_POINTS)}."
        )
        raise StudyError(msg)
    return parse_arguments(METHODS[method].arguments, method, arguments or {})


def create(
    method: str,
    prior: Prior,
    seed: int,
    max_adaptive_share: float = MAX_SHARE,
    ramp_generations: int = 3,
    arguments: Mapping[str, Any] | None = None,
) -> Sampler:
    """Makes a sampler.

    Args:
        method: one of `METHODS`.
        prior: p(λ).
        seed: of the sampler's own generators, at least 0.
        max_adaptive_share: the largest share ρ of adaptive points, in [0, 0.9].
        ramp_generations: generations over which ρ rises from 0 to it, at least 0.
        arguments: the method's own.

    Raises:
        StudyError: names the key, what was found and what is legal.

    Example:
        >>> prior = Prior.from_mapping({"nu": {"low": 0.0, "high": 1.0}})
        >>> create("sobol", prior, seed=1).suggest(8).points.shape
        (8, 1)
    """
    parsed = check_arguments(method, arguments, tabulated=prior.tabulated)
    if not 0.0 <= max_adaptive_share <= MAX_SHARE:
        msg = f"sampler.max_adaptive_share is {max_adaptive_share}, legal is 0 to {MAX_SHARE}."
        raise StudyError(msg)
    if ramp_generations < 0:
        msg = f"sampler.ramp_generations is {ramp_generations}, legal is 0 or more."
        raise StudyError(msg)
    if seed < 0:
        msg = f"seed is {seed}, legal is 0 or more."
        raise StudyError(msg)
    return METHODS[method].build(prior, seed, parsed, Ramp(max_adaptive_share, ramp_generations))

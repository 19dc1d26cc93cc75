"""The sampling methods by name, and the creation of a sampler from a study's `sampler` section.

How to add a method, taking `pool` (`adaptive/pool.py`) as the example:

1. Declare its arguments: `PoolArguments`, a subclass of `Arguments` with a default for each field.
2. Write the part that is new. `Pool` is a `Proposer`: its `draw` returns points that follow a(λ)^β. The
   learning, the mixture with the prior and the checkpoints come from the base classes. A method that
   learns in its own way subclasses `AdaptiveRule` (`breed`), and a fixed design `PointSequence` (`lhs`).
3. Write `build(prior, seed, arguments, schedule)`, which returns the `Sampler`.
4. Add a line to `METHODS` below: arguments, `build`, and what the method needs of the prior.
5. Run `tests/unit/sampling/test_contract.py`, which tests every method in `METHODS`.

A method of another package calls `register` instead of step 4.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

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
    measured,
    phased,
    pool,
    r3,
    rad,
    rar_d,
    twisted,
)
from melissa_gen.sampling.adaptive_share import MAX_SHARE, Ramp
from melissa_gen.sampling.arguments import Arguments, StudyFacts, parse_arguments
from melissa_gen.sampling.base import Sampler
from melissa_gen.sampling.designs import (
    grid,
    halton,
    lhs,
    pick_freeze,
    sobol,
    table,
    uniform,
    uniform_resampled,
)
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["METHODS", "Method", "check_arguments", "create", "register"]


@dataclass(frozen=True)
class Method:
    """One sampling method: how it is built, and what it needs.

    Args:
        arguments: Model of its arguments.
        build: Creates the sampler from (prior, seed, arguments, ramp of the adaptive share).
        needs_density: Whether it needs the prior's density, or a prior that fills the unit cube.
            A method that needs draws of the prior only also works from a table of points.
        eviction: Rule by which the reservoir must evict samples; None: the study determines it.
        check: Checks the prior and the facts of the study before the start, or None.
        ordered: Whether the number of a simulation determines the meaning of its point. All points are then drawn
            before the start, so that no draw of the prior replaces one that is late.
        learns: Whether it learns from the training.
    """

    arguments: type[Arguments]
    build: Callable[[Prior, int, Any, Ramp], Sampler]
    needs_density: bool = True
    eviction: Literal["difficulty"] | None = None
    check: Callable[[Prior, StudyFacts], None] | None = None
    ordered: bool = False
    learns: bool = True

    @property
    def summary(self) -> str:
        """The docstring of the arguments' model."""
        return self.arguments.__doc__ or ""


METHODS: dict[str, Method] = {
    "uniform": Method(uniform.UniformArguments, uniform.build, needs_density=False, learns=False),
    "sobol": Method(sobol.SobolArguments, sobol.build, learns=False),
    "halton": Method(halton.HaltonArguments, halton.build, learns=False),
    "lhs": Method(lhs.LhsArguments, lhs.build, learns=False),
    "grid": Method(grid.GridArguments, grid.build, learns=False),
    "pick_freeze": Method(
        pick_freeze.PickFreezeArguments,
        pick_freeze.build,
        check=pick_freeze.check,
        ordered=True,
        learns=False,
    ),
    "table": Method(table.TableArguments, table.build, needs_density=False, learns=False),
    "uniform_resampled": Method(
        uniform_resampled.UniformResampledArguments,
        uniform_resampled.build,
        needs_density=False,
        learns=False,
    ),
    "adaptive": Method(measured.AdaptiveArguments, measured.build, needs_density=False),
    "pool": Method(pool.PoolArguments, pool.build, needs_density=False),
    "rad": Method(rad.RadArguments, rad.build, needs_density=False),
    "rar_d": Method(rar_d.RarDArguments, rar_d.build, needs_density=False),
    "r3": Method(r3.R3Arguments, r3.build, needs_density=False, eviction="difficulty"),
    "breed": Method(breed.BreedArguments, breed.build),
    "diffusion_posterior": Method(
        diffusion_posterior.DiffusionPosteriorArguments, diffusion_posterior.build
    ),
    "twisted": Method(twisted.TwistedArguments, twisted.build),
    "diffusion_prior": Method(
        diffusion_prior.DiffusionPriorArguments, diffusion_prior.build, needs_density=False
    ),
    "conditional_diffusion": Method(
        conditional_diffusion.ConditionalDiffusionArguments, conditional_diffusion.build
    ),
    "joint": Method(joint.JointArguments, joint.build),
    "flow": Method(flow.FlowArguments, flow.build),
    "gan": Method(gan.GanArguments, gan.build),
    "phased": Method(phased.PhasedArguments, phased.build, needs_density=False),
    "energy": Method(energy.EnergyArguments, energy.build),
    "external": Method(external.ExternalArguments, external.build),
}


def register(name: str, method: Method) -> None:
    """Adds a method of another package; `create` then accepts its name.

    Args:
        name: The value of `sampler.method` that selects it.
        method: The method.

    Raises:
        ValueError: A method with this name exists already.
    """
    if name in METHODS:
        msg = f"the sampling method '{name}' exists already"
        raise ValueError(msg)
    METHODS[name] = method


def check_arguments(
    method: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    tabulated: bool = False,
    facts: StudyFacts | None = None,
) -> Arguments:
    """Checks a method's name and arguments without building it; returns them with defaults.

    Args:
        method: Name of the method.
        arguments: Arguments of the method.
        tabulated: Whether the prior is given only by a table of points.
        facts: Facts of the study, from which the method may take defaults.

    Raises:
        StudyError: The method or an argument is unknown, a value is illegal, or the method needs the
            density of a prior that is given only by points.
    """
    if method not in METHODS:
        msg = (
            f"sampler.method is '{method}', legal are {', '.join(METHODS)}"
            f"{nearest(str(method), METHODS)}."
        )
        raise StudyError(msg)
    if tabulated and METHODS[method].needs_density:
        legal = ", ".join(name for name, entry in METHODS.items() if not entry.needs_density)
        msg = (
            f"sampler.method is '{method}', which can't be used with feasible_points; "
            f"legal with feasible_points are {legal}."
        )
        raise StudyError(msg)
    model, given = METHODS[method].arguments, arguments or {}
    return parse_arguments(model, method, model.completed(given, facts) if facts else given)


def create(
    method: str,
    prior: Prior,
    seed: int,
    max_adaptive_share: float = MAX_SHARE,
    ramp_simulations: int = 12,
    arguments: Mapping[str, Any] | None = None,
    facts: StudyFacts | None = None,
) -> Sampler:
    """Creates a sampler.

    Args:
        method: Name of the method, one of `METHODS`.
        prior: Prior distribution p(λ) of the parameters.
        seed: Seed of the sampler's random generators, at least 0.
        max_adaptive_share: Largest share ρ of adaptive points, in [0, 0.9].
        ramp_simulations: Number of simulations with a difficulty after which this share is reached, at least 0.
        arguments: Arguments of the method.
        facts: Facts of the study, from which the method may take defaults.

    Raises:
        StudyError: The method or an argument is unknown, or a value is illegal. The message names the
            key, the value and the legal values.

    Example:
        >>> prior = Prior.from_mapping({"nu": {"low": 0.0, "high": 1.0}})
        >>> create("sobol", prior, seed=1).suggest(8).points.shape
        (8, 1)
    """
    parsed = check_arguments(method, arguments, tabulated=prior.tabulated, facts=facts)
    if not 0.0 <= max_adaptive_share <= MAX_SHARE:
        msg = f"sampler.max_adaptive_share is {max_adaptive_share}, legal is 0 to {MAX_SHARE}."
        raise StudyError(msg)
    if ramp_simulations < 0:
        msg = f"sampler.ramp_simulations is {ramp_simulations}, legal is 0 or more."
        raise StudyError(msg)
    if seed < 0:
        msg = f"seed is {seed}, legal is 0 or more."
        raise StudyError(msg)
    return METHODS[method].build(prior, seed, parsed, Ramp(max_adaptive_share, ramp_simulations))

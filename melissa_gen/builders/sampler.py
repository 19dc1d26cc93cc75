"""Builds the sampler, and the reservoir's eviction rule that it asks for, from a study's sections."""

from pathlib import Path

from melissa_gen.builders.prior import prior_of
from melissa_gen.errors import StudyError
from melissa_gen.reservoir.weighted_reservoir import Eviction
from melissa_gen.sampling import METHODS, Prior, Sampler, StudyFacts, check_arguments, create
from melissa_gen.study import (
    ReservoirSection,
    SamplerSection,
    ServerSection,
    SimulationSection,
    Study,
)

__all__ = ["build_sampler", "check_sampler", "eviction_rule", "study_facts"]


def study_facts(
    simulation: SimulationSection, reservoir: ReservoirSection, server: ServerSection, folder: Path
) -> StudyFacts:
    """Returns the numbers of a study that the default values of a method may depend on.

    Args:
        simulation: The study's `simulation` section.
        reservoir: Its `reservoir` section.
        server: Its `server` section.
        folder: The folder in which relative paths start.
    """
    held = reservoir.capacity * server.ranks // simulation.time_steps
    return StudyFacts(
        simulations=simulation.count, reservoir_simulations=max(held, 1), folder=folder
    )


def build_sampler(section: SamplerSection, prior: Prior, seed: int, facts: StudyFacts) -> Sampler:
    """Returns the sampler that the `sampler` section names.

    Args:
        section: The study's `sampler` section.
        prior: The distribution of the parameters.
        seed: Seed of the sampler's own random generators, at least 0.
        facts: Numbers of the study, for defaults that depend on it.

    Raises:
        StudyError: The method or an argument is not legal.
    """
    return create(
        section.method,
        prior,
        seed,
        section.max_adaptive_share,
        section.ramp_generations,
        section.arguments,
        facts,
    )


def eviction_rule(sampler: SamplerSection, reservoir: ReservoirSection) -> Eviction:
    """Returns which sample the reservoir evicts first: the method's rule, or the study's.

    Raises:
        StudyError: The method needs a rule that the reservoir's policy does not have.
    """
    method = METHODS.get(sampler.method)
    if method is None or method.eviction is None:
        return reservoir.eviction
    if reservoir.policy != "reservoir":
        msg = (
            f"sampler.method {sampler.method} retains hard samples, which needs reservoir.policy "
            f"reservoir; {reservoir.policy} draws each sample only once."
        )
        raise StudyError(msg)
    return method.eviction


def check_sampler(study: Study) -> None:
    """Checks the prior and the sampler before anything is started.

    Raises:
        StudyError: The prior is not legal, the method or an argument is unknown, the method needs
            a prior with a density and the study has only points, or it needs another reservoir.
    """
    prior = prior_of(study)
    check_arguments(study.sampler.method, study.sampler.arguments, tabulated=prior.tabulated)
    eviction_rule(study.sampler, study.reservoir)

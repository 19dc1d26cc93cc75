"""Builds the sampler of a study and determines the eviction rule of the reservoir."""

from pathlib import Path
from typing import Any

from melissa_gen.builders.prior import prior_of
from melissa_gen.errors import StudyError
from melissa_gen.reservoir.weighted_reservoir import Eviction
from melissa_gen.sampling import (
    METHODS,
    Adjust,
    Prior,
    Sampler,
    StudyFacts,
    adjust_acquisition,
    check_arguments,
    create,
)
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
    """Returns the properties of a study on which default arguments of a method may depend.

    Args:
        simulation: The study's `simulation` section.
        reservoir: The study's `reservoir` section.
        server: The study's `server` section.
        folder: The folder to which relative paths refer.
    """
    held = reservoir.capacity * server.ranks // simulation.time_steps
    return StudyFacts(
        simulations=simulation.count,
        reservoir_simulations=max(held, 1),
        server_ranks=server.ranks,
        folder=folder,
    )


def build_sampler(section: SamplerSection, prior: Prior, seed: int, facts: StudyFacts) -> Sampler:
    """Creates the sampler of a study.

    Args:
        section: The study's `sampler` section.
        prior: The distribution of the parameters.
        seed: Seed of the sampler's random generators, non-negative.
        facts: Properties of the study for default arguments.

    Raises:
        StudyError: The method or an argument is invalid.
    """
    sampler = create(
        section.method,
        prior,
        seed,
        section.max_adaptive_share,
        section.ramp_simulations,
        section.arguments,
        facts,
    )
    adjust = _user_acquisition(section, facts.folder)
    if adjust is not None and not adjust_acquisition(sampler, adjust):
        legal = ", ".join(
            name for name, one in METHODS.items() if "guide" in one.arguments.model_fields
        )
        msg = (
            f"sampler.method {section.method} has no acquisition that sampler.acquisition could change; legal are "
            f"{legal}"
        )
        raise StudyError(msg)
    return sampler


def _user_acquisition(section: SamplerSection, folder: Path) -> Adjust | None:
    """Creates the object of the class that `sampler.acquisition` names; None without the key."""
    named = section.acquisition
    if named is None:
        return None
    # Its package imports torch, which the control process does not need otherwise.
    from melissa_gen.surrogates.class_path import ClassKey

    key = ClassKey("sampler.acquisition", None, "interest.py:NearStall")
    cls = key.load(named.class_path, folder)
    key.check_arguments(cls, named.arguments, f"{key.key}.arguments")
    try:
        found: Any = cls(**named.arguments)
    except Exception as error:
        msg = (
            f"{key.key} is '{named.class_path}', which can't be created with its arguments: "
            f"{type(error).__name__}: {error}"
        )
        raise StudyError(msg) from error
    if not callable(found):
        msg = (
            f"{key.key} is '{named.class_path}', whose objects can't be called; define "
            "__call__(self, parameters, log_a, fields)"
        )
        raise StudyError(msg)
    adjust: Adjust = found
    return adjust


def eviction_rule(sampler: SamplerSection, reservoir: ReservoirSection) -> Eviction:
    """Returns the eviction rule of the reservoir: that of the sampling method, or else of the study.

    Raises:
        StudyError: The reservoir's policy does not support the rule of the method.
    """
    method = METHODS.get(sampler.method)
    if method is None or method.eviction is None:
        return reservoir.eviction
    if reservoir.policy != "reservoir":
        msg = (
            f"sampler.method {sampler.method} retains hard samples, which requires reservoir.policy "
            f"reservoir; {reservoir.policy} draws each sample only once."
        )
        raise StudyError(msg)
    return method.eviction


def check_sampler(study: Study) -> None:
    """Checks the prior and the sampler of a study before anything is started.

    Raises:
        StudyError: The prior is invalid, the method or an argument is unknown, the method requires
            a prior with a density but the study has feasible points, another number of simulations, or
            another reservoir policy.
    """
    prior = prior_of(study)
    method = METHODS.get(study.sampler.method)
    if not study.training.enabled and method is not None and method.learns:
        designs = ", ".join(name for name, one in METHODS.items() if not one.learns)
        msg = (
            f"sampler.method {study.sampler.method} learns from the training, and training.enabled is false; legal "
            f"are {designs}"
        )
        raise StudyError(msg)
    facts = study_facts(study.simulation, study.reservoir, study.server, study.folder)
    check_arguments(
        study.sampler.method, study.sampler.arguments, tabulated=prior.tabulated, facts=facts
    )
    check = METHODS[study.sampler.method].check
    if check is not None:
        check(prior, facts)
    if study.sampler.acquisition is not None:
        build_sampler(study.sampler, prior, study.seed, facts)
    eviction_rule(study.sampler, study.reservoir)

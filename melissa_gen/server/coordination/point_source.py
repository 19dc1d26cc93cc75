"""Creates the source of the parameters of a run's simulations."""

from collections.abc import Callable
from typing import Any

from melissa_gen import sampling
from melissa_gen.builders.dataset import recorded_trajectories
from melissa_gen.builders.prior import prior_of
from melissa_gen.builders.sampler import build_sampler, study_facts
from melissa_gen.server.coordination.fixed_design import FixedDesign
from melissa_gen.server.coordination.proposal_queue import ProposalQueue
from melissa_gen.server.setup import RankSetup

__all__ = ["point_source"]


def point_source(setup: RankSetup, event: Callable[..., Any]) -> ProposalQueue | FixedDesign:
    """Creates the queue of the study's sampler, or in a run without a sampler a fixed list of points.

    Args:
        setup: The study and the use of its samples.
        event: Writes an event.
    """
    study = setup.study
    prior, sampler = prior_of(study), study.sampler
    purpose = setup.purpose
    if purpose.data:
        with recorded_trajectories(study, purpose) as data:
            points = data.parameters.tolist()
        return FixedDesign(prior, study.simulation.count, purpose.seed, points)
    if not purpose.trains:
        return FixedDesign(prior, study.simulation.count, purpose.seed, purpose.points)
    size, low = sampler.generation_size, min(study.launcher.clients, sampler.generation_size)
    if sampling.METHODS[sampler.method].ordered:
        size = low = study.simulation.count
    return ProposalQueue(
        build_sampler(
            sampler,
            prior,
            study.seed,
            study_facts(study.simulation, study.reservoir, study.server, study.folder),
        ),
        prior,
        sampling.DifficultyTracker(sampler.difficulty),
        size=size,
        low=low,
        total=study.simulation.count,
        importance_exponent=study.training.importance_exponent,
        seed=study.seed,
        event=event,
        time_share=sampler.max_time_share,
    )

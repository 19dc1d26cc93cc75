"""Creates the reservoir of a rank that trains, without importing torch, so that ingest can start before training."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from melissa_gen import reservoir as reservoirs
from melissa_gen.builders.fields import field_specs, input_specs
from melissa_gen.builders.memory import growing_simulations, growing_slots, staging_slots
from melissa_gen.builders.sampler import eviction_rule
from melissa_gen.reservoir import WindowShape
from melissa_gen.server.training.pacing import Pacing, Supply
from melissa_gen.study import Study

__all__ = ["slots_of", "study_pacing", "training_reservoir"]


def slots_of(study: Study, shape: WindowShape | None) -> int:
    """Returns the slots of a reservoir, with those for samples that are being assembled.

    Args:
        study: The study.
        shape: Its `window_shape`.
    """
    return study.reservoir.capacity + staging_slots(study) + growing_slots(study, shape)


def training_reservoir(
    study: Study,
    rank: int,
    ranks: int,
    shape: WindowShape | None,
    *,
    resume: bool,
    arrays: Mapping[str, NDArray[Any]] | None = None,
) -> reservoirs.Policy:
    """Creates the reservoir of one rank, with slots for samples that are being assembled.

    Args:
        study: The study.
        rank: The rank.
        ranks: Number of ranks.
        shape: The `window_shape` of the study, which this function does not compute: most tasks need torch for it.
        resume: Whether the samples of an earlier server are restored into it.
        arrays: The arrays of `shared_specs`; None: the rows are in the memory of this process alone.
    """
    section = study.reservoir
    rows = reservoirs.SlotStore(
        field_specs(study.simulation),
        slots_of(study, shape),
        len(study.parameters) + 1,
        input_specs=input_specs(study.simulation),
        arrays=arrays,
    )
    policy = reservoirs.create(
        section.policy,
        rows,
        section.capacity,
        section.watermark,
        study.seed + rank,
        eviction_rule(study.sampler, section),
        section.draws,
        # Where draws are limited, repeated ones would use up the draws that unseen samples need.
        unseen_first=study.training.max_draws_per_sample is not None,
    )
    if shape is not None:
        policy.form_windows(shape, study.simulation.time_steps, growing_simulations(study))
    if not resume:
        # Samples that arrive before the trainer's first step must not run ahead of it either.
        nothing = Supply(ready=0, drained=0, blocked=0, available=0, accepted=0, closed=0)
        policy.allow_puts(study_pacing(study, policy, ranks).allowance(0, nothing, 0))
    return policy


def study_pacing(study: Study, reservoir: reservoirs.Source, ranks: int) -> Pacing:
    """Returns the pacing of a study's training on a number of ranks that each have such a reservoir."""
    training = study.training
    return Pacing(
        ranks,
        training.draws_per_sample,
        training.max_draws_per_sample,
        # Beside them, the time steps of windows that are not complete yet.
        slack=study.reservoir.watermark
        + training.batch_size
        + (reservoir.restorable - reservoir.capacity),
        items=reservoir.items_per_sample,
    )

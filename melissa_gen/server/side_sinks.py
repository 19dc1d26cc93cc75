"""Creates the sinks that use the samples of a study beside its training."""

from collections.abc import Callable
from typing import Any

import numpy as np

from melissa_gen.builders.dataset import dataset_settings, dataset_writer
from melissa_gen.builders.statistics import statistics_plan
from melissa_gen.dataset import DatasetWriter
from melissa_gen.errors import DataError
from melissa_gen.protocol import wire
from melissa_gen.server.setup import RankSetup
from melissa_gen.sinks import RecordSink, SideSink, StatisticsSink
from melissa_gen.statistics import STATISTICS_FILE
from melissa_gen.study import RecordSection

__all__ = ["side_sinks"]


def side_sinks(
    setup: RankSetup, *, resume: bool, from_rank_0: Callable[[Any], Any] = lambda value: value
) -> list[SideSink]:
    """Creates the side sinks of a rank, which the sections of the study name (collective).

    Args:
        setup: The study and this rank.
        resume: Whether an earlier server has begun, so that `restore` will be called.
        from_rank_0: Returns rank 0's value on every rank (collective); default: there is one rank.

    Returns:
        The sinks, in the same order on all ranks; none in a run for another purpose than training.
    """
    found: list[SideSink] = []
    if not setup.purpose.trains:
        return found
    if setup.study.record is not None:
        found.append(_record(setup, setup.study.record, from_rank_0, resume=resume))
    study = setup.study
    if study.statistics is not None:
        plan = statistics_plan(study, study.statistics)
        path = setup.run_dir / STATISTICS_FILE
        found.append(StatisticsSink(plan, path, setup.rank, setup.ranks))
    return found


def _record(
    setup: RankSetup, section: RecordSection, from_rank_0: Callable[[Any], Any], *, resume: bool
) -> RecordSink:
    """Creates the sink that writes a file; one that can't be continued ends the recording (collective).

    Raises:
        DataError: A new file can't be written.
    """
    fields = section.fields or list(setup.study.simulation.fields)
    writer, failure = None, None
    if setup.rank == 0:
        writer, failure = _opened(setup, section, resume=resume)
    # The other ranks open the file that rank 0 has created.
    failure = from_rank_0(failure)
    if setup.rank and failure is None:
        writer, failure = _opened(setup, section, resume=resume)
    waits = not setup.study.training.enabled
    return RecordSink(writer, fields, waits=waits, failure=failure, rank=setup.rank)


def _opened(
    setup: RankSetup, section: RecordSection, *, resume: bool
) -> tuple[DatasetWriter | None, str | None]:
    """Returns the writer of this rank's simulations, or why an earlier recording can't be continued.

    Raises:
        DataError: A new file can't be written.
    """
    study = setup.study
    # Hashes of the solver's files would forbid to resume the run after a change in another file.
    settings = dataset_settings(study, study.simulation.count, study.seed, files={})
    try:
        writer = dataset_writer(
            study,
            setup.run_dir / section.file,
            settings,
            resume=resume or setup.rank > 0,
            fields=section.fields,
            rows=wire.owner(np.arange(study.simulation.count), setup.ranks) == setup.rank,
        )
    except DataError as error:
        if not resume:
            raise
        return None, str(error)
    return writer, None

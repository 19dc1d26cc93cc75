"""Creates the sinks that use the samples of a study beside its training."""

from melissa_gen.builders.dataset import dataset_settings, dataset_writer
from melissa_gen.builders.statistics import statistics_plan
from melissa_gen.errors import DataError
from melissa_gen.server.setup import RankSetup
from melissa_gen.sinks import RecordSink, SideSink, StatisticsSink
from melissa_gen.statistics import STATISTICS_FILE
from melissa_gen.study import RecordSection

__all__ = ["side_sinks"]


def side_sinks(setup: RankSetup, *, resume: bool) -> list[SideSink]:
    """Creates the side sinks of a rank, which the sections of the study name.

    Args:
        setup: The study and this rank.
        resume: Whether an earlier server has begun, so that `restore` will be called.

    Returns:
        The sinks, in the same order on all ranks; none in a run for another purpose than training.
    """
    found: list[SideSink] = []
    if not setup.purpose.trains:
        return found
    if setup.study.record is not None:
        found.append(_record(setup, setup.study.record, resume=resume))
    study = setup.study
    if study.statistics is not None:
        plan = statistics_plan(study, study.statistics)
        path = setup.run_dir / STATISTICS_FILE
        found.append(StatisticsSink(plan, path, setup.rank, setup.ranks))
    return found


def _record(setup: RankSetup, section: RecordSection, *, resume: bool) -> RecordSink:
    """Creates the sink that writes a file; one that can't be continued ends the recording.

    Raises:
        DataError: A new file can't be written.
    """
    study = setup.study
    # Hashes of the solver's files would forbid to resume the run after a change in another file.
    settings = dataset_settings(study, study.simulation.count, study.seed, files={})
    fields = section.fields or list(study.simulation.fields)
    path, failure = setup.run_dir / section.file, None
    try:
        writer = dataset_writer(study, path, settings, resume=resume, fields=fields)
    except DataError as error:
        if not resume:
            raise
        writer, failure = None, str(error)
    return RecordSink(writer, fields, waits=not study.training.enabled, failure=failure)

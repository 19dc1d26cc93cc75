"""Builds the plan of a study's statistics, and estimates their memory."""

import math

import numpy as np

from melissa_gen.builders.dataset import physical_times
from melissa_gen.builders.prior import prior_of
from melissa_gen.sinks import FieldPlan, StatisticsPlan
from melissa_gen.statistics import ChosenStatistics
from melissa_gen.study import StatisticsSection, Study

__all__ = ["statistics_megabytes", "statistics_plan"]

_COPIES = 5.0
"""The statistics themselves, their copy for a checkpoint, a copy that includes the samples that wait, and twice the
results that are computed from it."""
_COPIES_TO_MERGE = 1.0
"""More copies with several ranks: the part of a rank that is added."""


def statistics_plan(study: Study, section: StatisticsSection) -> StatisticsPlan:
    """Returns what the statistics of a study are computed of.

    Args:
        study: The study.
        section: Its `statistics` section.

    Raises:
        StudyError: The prior is invalid.
    """
    prior = prior_of(study)
    fields = study.simulation.fields
    return StatisticsPlan(
        fields={
            name: FieldPlan(
                tuple(fields[name].shape),
                fields[name].dtype,
                str(fields[name].unit),
                _selection(study, section, name, len(prior.free_names)),
            )
            for name in section.fields or fields
        },
        times=physical_times(study.simulation),
        parameters=prior.free_names,
        columns=prior.free_columns,
        log_prior=prior.log_density,
    )


def statistics_megabytes(study: Study) -> float:
    """Returns the memory of the statistics in one server rank in megabytes, copies for a checkpoint included."""
    if study.statistics is None:
        return 0.0
    simulation, section = study.simulation, study.statistics
    copies = _COPIES + _COPIES_TO_MERGE * (study.server.ranks > 1)
    return copies * sum(
        _selection(study, section, name, len(study.parameters)).megabytes(
            simulation.time_steps,
            tuple(simulation.fields[name].shape),
            np.dtype(simulation.fields[name].dtype).itemsize,
        )
        for name in section.fields or simulation.fields
    )


def _selection(
    study: Study, section: StatisticsSection, name: str, parameters: int
) -> ChosenStatistics:
    """Returns the statistics of one field.

    Groups of the Sobol indices are incomplete while their simulations run. A simulation that is repeated takes about as
    long as two others, so that three times the clients cover all of them. The simulations of a group on each rank
    alternate.
    """
    clients, ranks = study.launcher.clients, study.server.ranks
    return ChosenStatistics(
        order=section.moments,
        thresholds=tuple(section.thresholds.get(name, ())),
        quantiles=tuple(section.quantiles),
        covariances=parameters if section.covariance else 0,
        sobol=parameters if section.sobol else 0,
        groups=study.simulation.count // (parameters + 2) if section.sobol else 0,
        open_groups=math.ceil(3 * clients / (ranks * (parameters + 2))) + 2,
        ranks=ranks,
    )

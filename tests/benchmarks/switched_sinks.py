"""Recording and statistics as a study has them, which a benchmark switches on and off."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from loopback import FIELD, PARAMETERS, STEPS
from numpy.typing import NDArray

from melissa_gen.dataset import DatasetWriter
from melissa_gen.errors import RunError
from melissa_gen.reservoir import Sample
from melissa_gen.sinks import FieldPlan, RecordSink, SideSink, StatisticsPlan, StatisticsSink
from melissa_gen.sinks.side_sink import Ranks
from melissa_gen.statistics import ChosenStatistics

SIMULATIONS = 1000
TIME_STEPS = 100
"""Time steps of the statistics; the simulations of a benchmark are longer, and start again after so many."""


class Switched(SideSink):
    """Gives samples to a sink while `on` is set.

    Args:
        inner: The sink.
        steps: Number of time steps after which they start again.
    """

    def __init__(self, inner: SideSink, steps: int) -> None:
        self.inner, self.on, self._steps = inner, False, steps
        self.name = inner.name

    def consume(self, sample: Sample, fields: Mapping[str, NDArray[Any]]) -> None:
        """Uses one sample, if the sink is switched on."""
        if self.on:
            self.inner.consume(sample._replace(step=sample.step % self._steps), fields)

    def check(self) -> None:
        """Checks that the sink works.

        Raises:
            RunError: It has ended.
        """
        if failure := self.failure or self.inner.failure:
            message = f"{self.name} has ended: {failure}"
            raise RunError(message)

    def finish(self, ranks: Ranks, *, complete: bool) -> None:
        """Writes the results."""
        self.inner.finish(ranks, complete=complete)


def all_sinks(folder: Path, shape: tuple[int, ...]) -> list[Switched]:
    """Returns a recording and statistics of the field: moments, extremes, a threshold and a quantile."""
    fields = {FIELD: (shape, "f4")}
    writer = DatasetWriter(folder / "record.h5", fields, STEPS, PARAMETERS, SIMULATIONS, {})
    choice = ChosenStatistics(thresholds=(0.5,), quantiles=(0.5,))
    plan = StatisticsPlan(
        fields={FIELD: FieldPlan(shape, "float32", "", choice)},
        times=list(range(TIME_STEPS)),
        parameters=PARAMETERS,
        columns=list(range(len(PARAMETERS))),
        log_prior=lambda points: np.zeros(len(points)),
    )
    return [
        Switched(RecordSink(writer, [FIELD]), STEPS),
        Switched(StatisticsSink(plan, folder / "statistics.h5"), TIME_STEPS),
    ]

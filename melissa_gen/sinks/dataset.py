"""Writes samples to a data set file."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melissa_gen.dataset import DatasetWriter
from melissa_gen.reservoir import Sample, SlotStore
from melissa_gen.sinks.base import StreamSink

__all__ = ["DatasetSink"]


class DatasetSink(StreamSink):
    """Writes each sample to an HDF5 file. Row n of the file holds simulation n.

    Args:
        store: The slots in which samples are assembled.
        writer: The file; the sink closes it.
    """

    def __init__(self, store: SlotStore, writer: DatasetWriter) -> None:
        super().__init__(store)
        self._writer = writer
        # Number of time steps written, for each simulation that has started and is not complete.
        self._steps: dict[int, int] = {}

    def consume(self, sample: Sample, fields: Mapping[str, NDArray[Any]]) -> None:
        """Writes all fields of one time step. The last time step of a simulation completes its row."""
        simulation = sample.simulation
        if simulation not in self._steps:
            parameters = np.asarray(sample.inputs, np.float64)[:-1]
            self._writer.begin(simulation, simulation, parameters, sample.input_fields)
            self._steps[simulation] = 0
        for name, values in fields.items():
            self._writer.write(simulation, sample.step, name, values)
        self._steps[simulation] += 1
        if self._steps[simulation] == self._writer.time_steps:
            self._writer.finish(simulation)
            del self._steps[simulation]

    def state(self) -> dict[str, Any]:
        """Flushes the file and returns the counters and the written time steps of each row."""
        return super().state() | {"rows": self._writer.progress()}

    def sync(self) -> None:
        """Waits until the time steps in the last `state` are on disk (any thread)."""
        self._writer.sync()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues the file of an earlier server."""
        super().restore(state)
        self._writer.restore(state["rows"])
        self._steps = {row: int(steps.sum()) for row, steps in self._writer.unfinished().items()}

    def finish(self, *, complete: bool) -> None:
        """Closes the file. It gets its final name if the study is complete, else it keeps its partial name."""
        if complete:
            self._writer.close()
        else:
            self._writer.abandon()

    def summary(self) -> dict[str, Any]:
        """Returns the path of the data set and the number of its simulations."""
        return {
            "data_set": {"file": str(self._writer.path), "simulations": self._writer.rows_finished}
        }

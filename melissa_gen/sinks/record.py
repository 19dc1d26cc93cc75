"""Records the stream of a study in a data set file while the study trains."""

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melissa_gen.dataset import DatasetWriter
from melissa_gen.errors import DataError
from melissa_gen.reservoir import Inputs, Sample
from melissa_gen.sinks.side_sink import Ranks, SideSink

__all__ = ["QUEUE_BYTES", "RecordSink"]

QUEUE_BYTES = 64_000_000
"""Memory for samples that are received and not written yet."""
_WAKE_BYTES = 1_000_000
"""Waiting samples that are worth waking the recording thread."""


class _Row(NamedTuple):
    """A sample to write; its fields are copies."""

    simulation: int
    step: int
    parameters: NDArray[np.float64]
    fields: dict[str, NDArray[Any]]
    input_fields: Inputs
    nbytes: int


class _Mark(NamedTuple):
    """A place between two samples; the state of all samples before it is added to `state`."""

    state: dict[str, Any]
    reached: threading.Event


class RecordSink(SideSink):
    """Writes each sample to an HDF5 file, on a thread of its own. Row n of the file holds simulation n.

    All ranks write into one file, each the rows of its simulations.

    The thread writes about a megabyte at once, because being woken for each sample costs it several times the writing.

    Ingest never waits for the disk: a sample that finds the queue full is not written and counted as dropped, and its
    simulation stays incomplete in the file. Where nothing else uses the samples, ingest waits instead.

    Args:
        writer: The file; the sink closes it. None: the recording has ended before.
        fields: Names of the fields that are written.
        waits: Whether ingest waits for room in the queue.
        queue_bytes: Size of the queue. A larger sample still finds room in an empty queue.
        failure: Why the recording has ended before.
        rank: This rank. Rank 0 gives the file its final name.
    """

    name = "record"

    def __init__(
        self,
        writer: DatasetWriter | None,
        fields: Sequence[str],
        *,
        waits: bool = False,
        queue_bytes: int = QUEUE_BYTES,
        failure: str | None = None,
        rank: int = 0,
    ) -> None:
        self._writer, self._fields, self._waits = writer, tuple(fields), waits
        self._rank = rank
        self._limit, self._held = queue_bytes, 0
        self._wake, self._awaited = min(_WAKE_BYTES, queue_bytes // 2), False
        self._queue: deque[_Row | _Mark | None] = deque()
        self._changed = threading.Condition()
        self._dropped = 0
        # Totals of all ranks at the end.
        self._totals: dict[str, int] = {}
        self._whole = False
        # File and number of simulations of a recording that has ended before.
        self._ended: tuple[str | None, int] = None, 0
        self._mark = _Mark({}, threading.Event())
        # Number of time steps written, for each simulation that has started and is not complete.
        self._steps: dict[int, int] = {}
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)
        self.failure = failure
        if writer is not None:
            self._thread.start()

    def consume(self, sample: Sample, fields: Mapping[str, NDArray[Any]]) -> None:
        """Adds a copy of the sample to the queue."""
        nbytes = sum(fields[name].nbytes for name in self._fields)
        with self._changed:
            if self._waits and not self._fits(nbytes):
                self._wake_writer()
                self._changed.wait_for(lambda: self._fits(nbytes) or self.failure is not None)
            if self.failure is not None:
                return
            if not self._fits(nbytes):
                self._dropped += 1
                return
        row = _Row(
            sample.simulation,
            sample.step,
            np.array(sample.inputs, np.float64)[:-1],
            {name: fields[name].copy() for name in self._fields},
            sample.input_fields,
            nbytes,
        )
        self._add(row, nbytes)

    def state(self) -> dict[str, Any]:
        """Returns a state that the recording thread completes when it has written all samples consumed so far."""
        self._mark = _Mark({"dropped": self._dropped}, threading.Event())
        if self._writer is None:
            self._mark.state.update(self._place(), failure=self.failure, rows=None)
            self._mark.reached.set()
        else:
            self._add(self._mark)
        return self._mark.state

    def sync(self) -> None:
        """Waits until the samples of the last `state` are on disk."""
        mark = self._mark
        if self._writer is None or not mark.state:
            return
        mark.reached.wait()
        if mark.state["failure"] is None:
            try:
                self._writer.sync()
            except OSError as error:
                self.failure = f"{self._writer.partial} can't be written: {error.strerror}"
                mark.state["failure"] = self.failure

    def restore(
        self, states: Sequence[Mapping[str, Any]], every: Sequence[Mapping[str, Any]]
    ) -> None:
        """Continues the file of an earlier server, unless its recording has ended on any rank."""
        self._dropped += sum(state["dropped"] for state in states)
        ended = [state["failure"] for state in every if state["failure"] is not None]
        self.failure = self.failure or next(iter(ended), None)
        if self.failure is not None:
            for state in states:
                # The file of a run that had finished has its final name.
                whole = state["file"] is not None and Path(state["file"]).exists()
                file, before = state["file" if whole else "partial"], self._ended[1]
                self._ended = file, before + state["simulations"]
        elif self._writer is not None:
            for state in every:
                self._writer.restore(state["rows"])
            begun = self._writer.unfinished()
            self._steps = {row: int(steps.sum()) for row, steps in begun.items()}

    def finish(self, ranks: Ranks, *, complete: bool) -> None:
        """Writes what is queued and closes the file (collective). It gets its final name if the study is complete."""
        writer = self._writer
        if writer is not None:
            self._add(None)
            self._thread.join()
            if self._rank and self.failure is None:
                try:
                    writer.sync()
                except OSError as error:
                    self.failure = f"{writer.partial} can't be written: {error.strerror}"
        begun = {} if writer is None else writer.unfinished()
        mine = {
            "simulations": self._place()["simulations"],
            "dropped": self._dropped,
            "incomplete": sum(int(steps.sum()) for steps in begun.values()),
        }
        found = ranks.gather({"failure": self.failure, "totals": mine})
        self._totals = {key: sum(one["totals"][key] for one in found) for key in mine}
        failures = [one["failure"] for one in found if one["failure"] is not None]
        self.failure = self.failure or next(iter(failures), None)
        if writer is None:
            return
        if complete and self.failure is None and self._rank == 0:
            writer.close()
            self._whole = True
        else:
            writer.abandon()

    def summary(self) -> dict[str, Any]:
        """Returns the file, the number of its simulations, and the samples that can't be read there.

        Those are the samples of incomplete simulations, and those that were dropped: not written, because the queue was
        full.
        """
        file = self._ended[0]
        if self._writer is not None and file is None:
            file = str(self._writer.path if self._whole else self._writer.partial)
        return {"file": file, **self._totals}

    def _fits(self, nbytes: int) -> bool:
        return self._held == 0 or self._held + nbytes <= self._limit

    def _add(self, item: _Row | _Mark | None, nbytes: int = 0) -> None:
        with self._changed:
            self._queue.append(item)
            self._held += nbytes
            if self._held >= self._wake or not isinstance(item, _Row):
                self._wake_writer()

    def _wake_writer(self) -> None:
        """Lets the recording thread take all that is queued; the lock is held."""
        self._awaited = True
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._awaited)
                self._awaited = False
                items = deque(self._queue)
                self._queue.clear()
            while items:
                # A row that is written leaves its memory to the next ones.
                item = items.popleft()
                if item is None:
                    return
                self._use(item)

    def _use(self, item: _Row | _Mark) -> None:
        """Writes a sample, or completes the state of a mark."""
        try:
            if isinstance(item, _Mark):
                self._reach(item)
            elif self.failure is None:
                self._write(item)
        except Exception as error:
            known = isinstance(error, DataError)
            self._fail(str(error) if known else f"{type(error).__name__}: {error}")
        if isinstance(item, _Mark):
            item.state.setdefault("rows", None)
            item.state.update(self._place(), failure=self.failure)
            item.reached.set()
        else:
            with self._changed:
                self._held -= item.nbytes
                if self._waits:
                    self._changed.notify_all()

    def _place(self) -> dict[str, Any]:
        """Returns where the recording is, and how many of its simulations are complete."""
        file, simulations = self._ended
        if self._writer is None or file is not None:
            return {"file": file, "partial": file, "simulations": simulations}
        return {
            "file": str(self._writer.path),
            "partial": str(self._writer.partial),
            "simulations": self._writer.rows_finished,
        }

    def _fail(self, reason: str) -> None:
        with self._changed:
            self.failure = reason
            self._changed.notify_all()

    def _reach(self, mark: _Mark) -> None:
        if self._writer is not None and self.failure is None:
            mark.state["rows"] = self._writer.progress()

    def _write(self, row: _Row) -> None:
        """Writes one time step. The last time step of a simulation completes its row."""
        writer, simulation = self._writer, row.simulation
        assert writer is not None
        if simulation not in self._steps:
            writer.begin(simulation, simulation, row.parameters, row.input_fields)
            self._steps[simulation] = 0
        for name, values in row.fields.items():
            writer.write(simulation, row.step, name, values)
        self._steps[simulation] += 1
        if self._steps[simulation] == writer.time_steps:
            writer.finish(simulation)
            del self._steps[simulation]

"""All simulations of a study in columns, so that a study of millions of them needs little memory.

A simulation that is not over is also kept as an object. The number of these is bounded by the number of clients.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from melissa_gen.protocol import wire
from melissa_gen.protocol.failures import Failure

__all__ = [
    "FAILED",
    "FINISHED",
    "RUNNING",
    "WAITING",
    "SimulationRecord",
    "SimulationTable",
    "row_bytes",
]

WAITING, RUNNING, FINISHED, FAILED = "waiting", "running", "finished", "failed"
_STATUSES = (WAITING, RUNNING, FINISHED, FAILED)
_DRAWN = ("parameters", "log_density", "weight", "generation", "method")
_BLOCK = 4096
"""Rows that are converted at once."""
_PROGRESS = np.dtype(
    [
        ("status", np.uint8),
        ("attempts", np.int32),
        ("interrupted", np.int32),
        ("samples", np.int32),
        ("issued_at", np.float64),
        ("finished_at", np.float64),
    ]
)
"""What changes until a simulation is over; a time that is unknown is NaN."""


@dataclass
class SimulationRecord:
    """A simulation: its parameters, the method that proposed it, and its progress."""

    simulation: int
    parameters: tuple[float, ...]
    method: str
    generation: int
    log_density: float | None
    weight: float = 1.0
    status: str = WAITING
    attempts: int = 0
    interrupted: int = 0
    """Number of lost attempts that the simulation did not cause: the server was restarted, or the process died in a
    later simulation before it had sent all data of this one."""
    samples: int = 0
    job: str | None = None
    failure: Failure | None = None
    """The last failure."""
    issued_at: float | None = None
    finished_at: float | None = None

    @property
    def attempt(self) -> int:
        """Number of the running attempt, or of the last one."""
        return max(self.attempts - 1, 0)

    @property
    def seconds(self) -> float:
        """Time from the start of the successful attempt to its last sample (seconds); NaN unless it has finished."""
        if self.status != FINISHED or self.issued_at is None or self.finished_at is None:
            return math.nan
        return self.finished_at - self.issued_at

    @property
    def over(self) -> bool:
        """Whether the simulation is finished or was given up."""
        return self.status in (FINISHED, FAILED)

    def line(
        self, parameters: tuple[wire.StudyParameter, ...], difficulty: float | None
    ) -> dict[str, Any]:
        """Returns the record as a line of `simulations.jsonl`."""
        nothing = {"reason": None, "code": None, "values": None}
        return {
            "simulation": self.simulation,
            "parameters": wire.named_values(parameters, self.parameters),
            "method": self.method,
            "generation": self.generation,
            "log_density": self.log_density,
            "difficulty": difficulty,
            "attempts": self.attempts,
            "status": self.status,
            **(self.failure.record() if self.failure else nothing),
            "issued_at": self.issued_at,
            "finished_at": self.finished_at,
        }


class SimulationTable(Sequence[SimulationRecord]):
    """The drawn simulations in order. The record of one that is over is built from its row.

    Args:
        count: Number of planned simulations.

    Attributes:
        live: The records of the simulations that are not over, by number. `update` must follow a change of one.
        counts: Number of simulations by status.
        retried: Number of attempts that were repetitions after a failure.
    """

    def __init__(self, count: int) -> None:
        self.live: dict[int, SimulationRecord] = {}
        self.counts = dict.fromkeys(_STATUSES, 0)
        self.retried = 0
        self._size = 0
        # What never changes once a simulation is drawn; the number of parameters is known with the first one.
        self._drawn = np.zeros(count, _drawn_type(0))
        self._progress = np.zeros(count, _PROGRESS)
        self._methods: list[str] = []
        # The code of the last failure, and its values as the text of a JSON object.
        self._failures: dict[int, tuple[str, str]] = {}

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> SimulationRecord: ...

    @overload
    def __getitem__(self, index: slice) -> list[SimulationRecord]: ...

    def __getitem__(self, index: int | slice) -> SimulationRecord | list[SimulationRecord]:
        if isinstance(index, slice):
            return [self[number] for number in range(self._size)[index]]
        number = range(self._size)[index]
        return self.live.get(number) or self._record(number)

    def __iter__(self) -> Iterator[SimulationRecord]:
        # Converting a block of rows at once takes a fraction of the time of one row after the other.
        for start in range(0, self._size, _BLOCK):
            part = slice(start, min(start + _BLOCK, self._size))
            drawn = self._drawn[part]
            rows = zip(*(drawn[name].tolist() for name in _DRAWN), strict=True)
            progress = self._progress[part].tolist()
            for number, (row, state) in enumerate(zip(rows, progress, strict=True), start):
                yield self.live.get(number) or self._built(number, row, state)

    def append(self, record: SimulationRecord) -> None:
        """Adds a simulation, whose number must be the next one."""
        if not self._size:
            self._drawn = np.zeros(len(self._drawn), _drawn_type(len(record.parameters)))
        if record.method not in self._methods:
            self._methods.append(record.method)
        self._drawn[self._size] = (
            record.parameters,
            _number(record.log_density),
            record.weight,
            record.generation,
            self._methods.index(record.method),
        )
        self._size += 1
        self.live[record.simulation] = record
        self.counts[record.status] += 1
        self._write(record)

    def update(self, record: SimulationRecord) -> None:
        """Writes a changed record to its row; one that is over is not kept as an object any more."""
        row = self._progress[record.simulation]
        self.counts[_STATUSES[row["status"]]] -= 1
        self.counts[record.status] += 1
        self.retried -= _retries(int(row["attempts"]), int(row["interrupted"]))
        self.retried += _retries(record.attempts, record.interrupted)
        self._write(record)
        if record.over:
            self.live.pop(record.simulation, None)

    def state(self) -> dict[str, Any]:
        """Returns the state for a checkpoint, of JSON types and arrays.

        Only what may still change is copied, so that the call takes milliseconds for millions of simulations.
        """
        return {
            "drawn": self._drawn[: self._size],
            "progress": self._progress[: self._size].copy(),
            "methods": list(self._methods),
            "failures": self._failures.copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from the `state()` of an earlier server."""
        drawn, progress = state["drawn"], state["progress"]
        self._size, rows = len(drawn), max(len(drawn), len(self._drawn))
        self._drawn, self._progress = np.zeros(rows, drawn.dtype), np.zeros(rows, _PROGRESS)
        self._drawn[: self._size], self._progress[: self._size] = drawn, progress
        self._methods = list(state["methods"])
        self._failures = {int(n): (code, text) for n, (code, text) in state["failures"].items()}
        numbers = np.bincount(progress["status"], minlength=len(_STATUSES)).tolist()
        self.counts = dict(zip(_STATUSES, numbers, strict=True))
        attempts = progress["attempts"].astype(np.int64) - progress["interrupted"] - 1
        self.retried = int(np.maximum(attempts, 0).sum())
        going = np.flatnonzero(progress["status"] < _STATUSES.index(FINISHED)).tolist()
        self.live = {number: self._record(number) for number in going}

    def last_finished(self) -> SimulationRecord:
        """Returns the simulation that was over last; at least one simulation must be drawn."""
        times = self._progress["finished_at"][: self._size]
        return self[int(np.argmax(np.nan_to_num(times)))]

    def _write(self, record: SimulationRecord) -> None:
        self._progress[record.simulation] = (
            _STATUSES.index(record.status),
            record.attempts,
            record.interrupted,
            record.samples,
            _number(record.issued_at),
            _number(record.finished_at),
        )
        if record.failure is not None:
            failure = record.failure
            self._failures[record.simulation] = (failure.code, failure.values_json)

    def _record(self, number: int) -> SimulationRecord:
        drawn = [self._drawn[name][number].tolist() for name in _DRAWN]
        return self._built(number, drawn, self._progress[number].item())

    def _built(
        self, number: int, drawn: Sequence[Any], progress: Sequence[Any]
    ) -> SimulationRecord:
        parameters, log_density, weight, generation, method = drawn
        status, attempts, interrupted, samples, issued, finished = progress
        failure = self._failures.get(number)
        return SimulationRecord(
            number,
            tuple(parameters),
            self._methods[method],
            generation,
            _known(log_density),
            weight,
            _STATUSES[status],
            attempts,
            interrupted,
            samples,
            failure=Failure.received(*failure) if failure else None,
            issued_at=_known(issued),
            finished_at=_known(finished),
        )


def row_bytes(parameters: int) -> int:
    """Returns the memory of a simulation in a `SimulationTable`, including the copy for a checkpoint (bytes)."""
    return _drawn_type(parameters).itemsize + 2 * _PROGRESS.itemsize


def _drawn_type(parameters: int) -> "np.dtype[np.void]":
    return np.dtype(
        [
            ("parameters", np.float64, (parameters,)),
            ("log_density", np.float64),
            ("weight", np.float64),
            ("generation", np.int32),
            ("method", np.int16),
        ]
    )


def _retries(attempts: int, interrupted: int) -> int:
    return max(attempts - interrupted - 1, 0)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value

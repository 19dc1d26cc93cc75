"""The state of all simulations: pure, without sockets, threads or clocks (times are passed in)."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from melissa_gen.protocol.failures import Failure
from melissa_gen.server.coordination.simulation_table import (
    FAILED,
    FINISHED,
    RUNNING,
    WAITING,
    SimulationRecord,
    SimulationTable,
)

__all__ = [
    "FAILED",
    "FINISHED",
    "RUNNING",
    "WAITING",
    "AttemptOutcome",
    "Ledger",
    "SimulationRecord",
    "most_attempts",
]

_MOST_UNCHARGED = 100


def most_attempts(retries: int, epoch: int) -> int:
    """Returns the largest number of attempts at a simulation.

    Attempts that are not charged are included: those that ended with a job that failed at another simulation.

    Args:
        retries: `simulation.retries`.
        epoch: Number of earlier servers. Each may have left one attempt unfinished.
    """
    return retries + 1 + _MOST_UNCHARGED + epoch


@dataclass(frozen=True)
class AttemptOutcome:
    """The result of an attempt at a simulation."""

    record: SimulationRecord
    finished: bool = False
    failed: bool = False
    dropped: bool = False
    failure: Failure | None = None
    seconds: float = 0.0

    def event_fields(self) -> dict[str, Any]:
        """Returns the fields of the event that records the end of the attempt."""
        fields = {"simulation": self.record.simulation, "attempt": self.record.attempt}
        if self.failure is None:
            return fields | {"seconds": self.seconds, "samples": self.record.samples}
        return fields | self.failure.record() | {"dropped": self.dropped}


class Ledger:
    """All simulations of a study.

    Args:
        count: Simulations planned.
        time_steps: Samples that each must send.
        retries: Restarts of a simulation whose process died, before it is dropped.

    Attributes:
        count: Simulations planned.
        records: All drawn simulations.
    """

    def __init__(self, count: int, time_steps: int, retries: int) -> None:
        self.count = count
        self._time_steps, self._retries = time_steps, retries
        self.records = SimulationTable(count)
        # In the order in which they are issued.
        self._waiting: OrderedDict[int, None] = OrderedDict()
        # The running simulations of each job with any.
        self._of_job: dict[str, dict[int, SimulationRecord]] = {}

    @property
    def drawn(self) -> int:
        """Number of simulations whose parameters have been chosen."""
        return len(self.records)

    @property
    def unfinished(self) -> int:
        """Number of planned simulations that are neither finished nor dropped."""
        return self.count - self.records.counts[FINISHED] - self.records.counts[FAILED]

    def running(self) -> list[SimulationRecord]:
        """Returns the simulations that clients are solving."""
        return [r for r in self.records.live.values() if r.status == RUNNING]

    def waiting_numbers(self) -> Iterator[int]:
        """Yields the simulations that wait to be issued, the first one first."""
        return iter(self._waiting)

    def waiting(self) -> list[SimulationRecord]:
        """Returns the drawn simulations that no client is solving; those that are retried come first."""
        return [self.records[n] for n in self._waiting]

    @property
    def waiting_count(self) -> int:
        """Number of drawn simulations that no client is solving."""
        return len(self._waiting)

    @property
    def busy_jobs(self) -> Set[str]:
        """Jobs with running simulations."""
        return self._of_job.keys()

    def next_waiting(self, simulation: int | None = None) -> SimulationRecord | None:
        """Returns the simulation that waits to be issued first, or a given one if it waits; else None."""
        number = next(iter(self._waiting), -1) if simulation is None else simulation
        return self.records[number] if number in self._waiting else None

    def add(
        self,
        parameters: tuple[float, ...],
        method: str,
        generation: int,
        log_density: float | None,
        weight: float = 1.0,
    ) -> SimulationRecord:
        """Adds a proposal as the next simulation."""
        record = SimulationRecord(
            len(self.records), parameters, method, generation, log_density, weight
        )
        self.records.append(record)
        self._waiting[record.simulation] = None
        return record

    def issue(self, record: SimulationRecord, job: str, now: float) -> int:
        """Issues a waiting simulation to a job; returns the number of the attempt."""
        del self._waiting[record.simulation]
        self._of_job.setdefault(job, {})[record.simulation] = record
        record.status, record.job, record.issued_at = RUNNING, job, now
        record.attempts += 1
        self.records.update(record)
        return record.attempt

    def of_job(self, job: str) -> list[SimulationRecord]:
        """Returns the running simulations of a job in the order in which they were issued.

        The job is solving the last one. Of the others, the server has not yet read all data.
        """
        return sorted(self._of_job.get(job, {}).values(), key=lambda r: r.issued_at or 0.0)

    def current(self, simulation: int, attempt: int) -> SimulationRecord | None:
        """Returns a simulation if the given attempt is the running one, else None."""
        record = self.records.live.get(simulation)
        if record is None or record.status != RUNNING or record.attempt != attempt:
            return None
        return record

    def finalized(
        self,
        simulation: int,
        attempt: int,
        steps: int,
        complete: int,
        now: float,
        fault: Sequence[str] = (),
    ) -> AttemptOutcome | None:
        """Records the report of the owner on an attempt that has ended, with its number of samples.

        A fault of the decomposition (code and field) ends the simulation: it would be the same in each attempt.
        """
        record = self.current(simulation, attempt)
        if record is None:
            return None
        if fault:
            failure = Failure.of(fault[0], simulation=simulation, field=fault[1])
            return self._end(record, failure, now, retry=False)
        if steps < self._time_steps:
            values = {"simulation": simulation, "steps": steps, "time_steps": self._time_steps}
            return self._end(record, Failure.of("too_few_steps", **values), now, retry=False)
        if complete < self._time_steps:
            failure = Failure.of("lost_steps", received=complete, time_steps=self._time_steps)
            return self._end(record, failure, now, retry=True)
        record.status, record.finished_at, record.samples = FINISHED, now, complete
        self._leave_job(record)
        self.records.update(record)
        return AttemptOutcome(record, finished=True, seconds=now - (record.issued_at or now))

    def failed(
        self,
        simulation: int,
        attempt: int,
        failure: Failure,
        now: float,
        *,
        retry: bool,
        charged: bool = True,
    ) -> AttemptOutcome | None:
        """Ends a running attempt that has failed.

        Args:
            simulation: Number of the simulation.
            attempt: Number of the attempt.
            failure: The reason.
            now: Seconds since the epoch.
            retry: Whether the simulation is tried again while retries are left.
            charged: Whether the attempt counts against the retries.

        Returns:
            The outcome; None if the attempt is not running.
        """
        record = self.current(simulation, attempt)
        if record is None:
            return None
        record.interrupted += not charged
        return self._end(record, failure, now, retry=retry)

    def never_started(self, simulation: int, failure: Failure, now: float) -> AttemptOutcome | None:
        """Records that the job of a waiting simulation has ended before it requested the parameters."""
        record = self.records.live.get(simulation)
        if record is None or record.status != WAITING:
            return None
        self.issue(record, "", now)
        return self._end(record, failure, now, retry=True)

    def _end(
        self, record: SimulationRecord, failure: Failure, now: float, *, retry: bool
    ) -> AttemptOutcome:
        record.failure = failure
        charged = record.attempts - record.interrupted
        again = retry and charged <= self._retries and record.interrupted < _MOST_UNCHARGED
        if again:
            record.status = WAITING
            self._waiting[record.simulation] = None
            self._waiting.move_to_end(record.simulation, last=False)
        else:
            record.status, record.finished_at = FAILED, now
        self._leave_job(record)
        self.records.update(record)
        return AttemptOutcome(record, failed=True, dropped=not again, failure=failure)

    def _leave_job(self, record: SimulationRecord) -> None:
        """Removes a simulation that does not run any more from those of its job."""
        assert record.job is not None
        of_job = self._of_job[record.job]
        del of_job[record.simulation]
        if not of_job:
            del self._of_job[record.job]

    def state(self) -> dict[str, Any]:
        """Returns the state for a checkpoint, of JSON types and arrays."""
        return {"records": self.records.state(), "waiting": list(self._waiting)}

    def restore(self, state: Mapping[str, Any]) -> int:
        """Continues from the `state()` of an earlier server: simulations that were running wait for their next attempt.

        Returns:
            Number of simulations that were running.
        """
        self.records.restore(state["records"])
        under_way = sorted(self.running(), key=lambda r: r.issued_at or 0.0)
        for record in under_way:
            record.status = WAITING
            record.interrupted += 1
            self.records.update(record)
        order = [*(r.simulation for r in under_way), *state["waiting"]]
        self._waiting, self._of_job = OrderedDict.fromkeys(order), {}
        return len(under_way)

    def failure(self) -> str | None:
        """Returns a sentence if no simulation was completed, else None."""
        if self.records.counts[FINISHED] or not self.records:
            return None
        last = self.records.last_finished()
        return f"all {self.count} simulations failed; the last one, simulation {last.simulation}: {last.failure}"

    def counts(self) -> dict[str, int]:
        """Returns the numbers of planned, waiting, running, completed, failed and retried simulations."""
        by_status = self.records.counts
        return {
            "planned": self.count,
            "waiting": self.count - self.drawn + by_status[WAITING],
            "running": by_status[RUNNING],
            "completed": by_status[FINISHED],
            "failed": by_status[FAILED],
            "retried": self.records.retried,
        }

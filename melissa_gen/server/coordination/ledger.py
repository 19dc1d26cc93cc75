"""The state of all simulations, kept by rank 0: pure, without sockets, threads or clocks (times are passed in)."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from melissa_gen.protocol.failures import Failure

__all__ = [
    "FAILED",
    "FINISHED",
    "RUNNING",
    "WAITING",
    "AttemptOutcome",
    "Ledger",
    "SimulationRecord",
]

WAITING, RUNNING, FINISHED, FAILED = "waiting", "running", "finished", "failed"


@dataclass
class SimulationRecord:
    """One simulation: what it solves, who chose it, how it went."""

    simulation: int
    parameters: tuple[float, ...]
    method: str
    generation: int
    log_density: float | None
    weight: float = 1.0
    status: str = WAITING
    attempts: int = 0
    interrupted: int = 0
    """Attempts that were lost through no fault of the simulation: with an earlier server, or solved by a process that
    died in a later simulation before all of its data had left."""
    difficulty: float | None = None
    samples: int = 0
    job: str | None = None
    reason: str | None = None
    """Why the last failed attempt failed, in words; `code` and `values` say it for programs."""
    code: str | None = None
    values: dict[str, Any] | None = None
    issued_at: float | None = None
    finished_at: float | None = None
    reports: dict[int, int] = field(default_factory=dict)
    """Server rank to complete samples, for the running attempt."""

    @property
    def attempt(self) -> int:
        """Number of the attempt that runs now, or ran last."""
        return max(self.attempts - 1, 0)

    def line(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Returns the record as a line of `simulations.jsonl`."""
        return {
            "simulation": self.simulation,
            "parameters": dict(zip(names, self.parameters, strict=True)),
            "method": self.method,
            "generation": self.generation,
            "log_density": self.log_density,
            "difficulty": self.difficulty,
            "attempts": self.attempts,
            "status": self.status,
            "reason": self.reason,
            "code": self.code,
            "values": self.values,
            "issued_at": self.issued_at,
            "finished_at": self.finished_at,
        }


@dataclass(frozen=True)
class AttemptOutcome:
    """What an event did to a simulation."""

    record: SimulationRecord
    finished: bool = False
    failed: bool = False
    dropped: bool = False
    failure: Failure | None = None
    seconds: float = 0.0

    def event_fields(self) -> dict[str, Any]:
        """Returns what the event of the attempt's end records."""
        fields = {"simulation": self.record.simulation, "attempt": self.record.attempt}
        if self.failure is None:
            return fields | {"seconds": self.seconds, "samples": self.record.samples}
        return fields | self.failure.record() | {"dropped": self.dropped}


class Ledger:
    """All simulations of a study.

    Args:
        count: Simulations planned.
        time_steps: Samples that each must send.
        server_ranks: Server ranks, each of which reports on each attempt.
        retries: Restarts of a simulation whose process died, before it is dropped.
    """

    def __init__(self, count: int, time_steps: int, server_ranks: int, retries: int) -> None:
        self.count = count
        self._time_steps, self._ranks, self._retries = time_steps, server_ranks, retries
        self.records: list[SimulationRecord] = []
        self._waiting: deque[int] = deque()

    @property
    def drawn(self) -> int:
        """Simulations whose parameters are chosen."""
        return len(self.records)

    @property
    def unfinished(self) -> int:
        """Simulations that are not finished and not given up, drawn or not."""
        return self.count - sum(r.status in (FINISHED, FAILED) for r in self.records)

    def running(self) -> Iterator[SimulationRecord]:
        """The simulations that a client works on now."""
        return (r for r in self.records if r.status == RUNNING)

    def waiting(self) -> list[SimulationRecord]:
        """Drawn simulations that no client works on, those to be tried again first."""
        return [self.records[n] for n in self._waiting]

    def add(
        self,
        parameters: tuple[float, ...],
        method: str,
        generation: int,
        log_density: float | None,
        weight: float = 1.0,
    ) -> SimulationRecord:
        """Takes in a proposal as the next simulation."""
        record = SimulationRecord(
            len(self.records), parameters, method, generation, log_density, weight
        )
        self.records.append(record)
        self._waiting.append(record.simulation)
        return record

    def issue(self, record: SimulationRecord, job: str, now: float) -> int:
        """Gives a waiting simulation to a job; returns the attempt's number."""
        self._waiting.remove(record.simulation)
        record.status, record.job, record.issued_at = RUNNING, job, now
        record.attempts += 1
        record.reports = {}
        return record.attempt

    def of_job(self, job: str) -> list[SimulationRecord]:
        """The simulations of a job that are not over, in the order of their issue.

        It works on the last one; of those before it the server has not yet read all that the job sent.
        """
        return sorted((r for r in self.running() if r.job == job), key=lambda r: r.issued_at or 0.0)

    def current(self, simulation: int, attempt: int) -> SimulationRecord | None:
        """The simulation, if this attempt of it is the one that runs."""
        if not 0 <= simulation < len(self.records):
            return None
        record = self.records[simulation]
        return record if record.status == RUNNING and record.attempt == attempt else None

    def finalized(
        self, rank: int, simulation: int, attempt: int, steps: int, complete: int, now: float
    ) -> AttemptOutcome | None:
        """A server rank says that an attempt is over, and how many of its samples it has."""
        record = self.current(simulation, attempt)
        if record is None:
            return None
        record.reports[rank] = complete
        if len(record.reports) < self._ranks:
            return None
        received = sum(record.reports.values())
        if steps < self._time_steps:
            values = {"simulation": simulation, "steps": steps, "time_steps": self._time_steps}
            return self._end(record, Failure.of("too_few_steps", **values), now, retry=False)
        if received < self._time_steps:
            failure = Failure.of("lost_steps", received=received, time_steps=self._time_steps)
            return self._end(record, failure, now, retry=True)
        record.status, record.finished_at, record.samples = FINISHED, now, received
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
        """Gives up a running attempt.

        Args:
            simulation: Number of the simulation.
            attempt: Number of the attempt.
            failure: Why it failed.
            now: Seconds since the epoch.
            retry: Whether the simulation is tried again while retries are left.
            charged: Whether the attempt counts against the retries.

        Returns:
            The outcome; None if that attempt does not run.
        """
        record = self.current(simulation, attempt)
        if record is None:
            return None
        record.interrupted += not charged
        return self._end(record, failure, now, retry=retry)

    def never_started(self, simulation: int, failure: Failure, now: float) -> AttemptOutcome | None:
        """The job of a waiting simulation ended before it asked for its parameters."""
        record = self.records[simulation]
        if record.status != WAITING:
            return None
        self.issue(record, "", now)
        return self._end(record, failure, now, retry=True)

    def _end(
        self, record: SimulationRecord, failure: Failure, now: float, *, retry: bool
    ) -> AttemptOutcome:
        record.reason, record.code = failure.sentence, failure.code
        record.values = dict(failure.values)
        if retry and record.attempts - record.interrupted <= self._retries:
            record.status = WAITING
            self._waiting.appendleft(record.simulation)
            return AttemptOutcome(record, failed=True, failure=failure)
        record.status, record.finished_at = FAILED, now
        return AttemptOutcome(record, failed=True, dropped=True, failure=failure)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON types."""
        records = [asdict(record) for record in self.records]
        return {"records": records, "waiting": list(self._waiting)}

    def restore(self, state: Mapping[str, Any]) -> int:
        """Continues from the `state()` of an earlier server: simulations that were running wait for their next attempt.

        Returns:
            How many simulations were under way.
        """
        self.records = [
            SimulationRecord(
                **row | {"parameters": tuple(row["parameters"]), "job": None, "reports": {}}
            )
            for row in state["records"]
        ]
        under_way = sorted(self.running(), key=lambda r: r.issued_at or 0.0)
        for record in under_way:
            record.status = WAITING
            record.interrupted += 1
        self._waiting = deque([*(r.simulation for r in under_way), *state["waiting"]])
        return len(under_way)

    def failure(self) -> str | None:
        """One sentence if not one simulation was completed, else None."""
        if any(r.status == FINISHED for r in self.records) or not self.records:
            return None
        last = max(self.records, key=lambda r: r.finished_at or 0.0)
        return f"all {self.count} simulations failed; the last one, simulation {last.simulation}: {last.reason}"

    def counts(self) -> dict[str, int]:
        """Returns how many simulations are planned, waiting, running, completed, failed, and were retried."""
        by_status = {s: 0 for s in (WAITING, RUNNING, FINISHED, FAILED)}
        for record in self.records:
            by_status[record.status] += 1
        return {
            "planned": self.count,
            "waiting": self.count - self.drawn + by_status[WAITING],
            "running": by_status[RUNNING],
            "completed": by_status[FINISHED],
            "failed": by_status[FAILED],
            "retried": sum(max(r.attempts - r.interrupted - 1, 0) for r in self.records),
        }

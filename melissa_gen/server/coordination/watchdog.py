"""Notices that a run makes no progress although something is due, and says which part waits for which.

Pure: times are arguments. Other timeouts watch over a solving client (`simulation.timeout`), a client job that has not
connected (`launcher.connect_timeout`) and a silent peer (`server.heartbeat_timeout`), and `RankWatch` watches over a
server rank that trains, validates or saves; while one of these runs, the run is not stalled. The watchdog covers all
other states, including unforeseen ones.
"""

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Set

from melissa_gen.protocol import wire
from melissa_gen.server.coordination.action_list import ActionList
from melissa_gen.server.coordination.events import (
    LIMITED,
    WAITING,
    Action,
    JobsWaiting,
    Pulse,
    RankReport,
    ReportFailure,
    WriteEvent,
)

__all__ = ["Watchdog"]

_WARN_SHARE = 0.5
"""Share of the timeout after which the user is warned."""


class Watchdog:
    """Watches the progress of a run.

    Args:
        timeout: Seconds without progress after which the run ends.
        simulation_timeout: Seconds that a client may solve one time step.
    """

    def __init__(self, timeout: float, simulation_timeout: float) -> None:
        self._timeout, self._simulation_timeout = timeout, simulation_timeout
        # The last report of each server rank, and when it arrived.
        self._reports: dict[int, tuple[RankReport, float]] = {}
        self._jobs = JobsWaiting()
        self._seen: Hashable = None
        # Time of the last progress; None before the first check.
        self._progressed: float | None = None
        self._warned = self._samples_arrive = False

    @property
    def jobs(self) -> JobsWaiting:
        """Client jobs that were started and have not connected."""
        return self._jobs

    def set_jobs(self, jobs: JobsWaiting) -> None:
        """Records which client jobs have not connected."""
        self._jobs = jobs

    def report(self, report: RankReport, now: float) -> list[Action]:
        """Records the report of a server rank; returns an event if it is the first one with a sample."""
        self._reports[report.rank] = (report, now)
        if self._samples_arrive or not report.received:
            return []
        self._samples_arrive = True
        actions = ActionList()
        actions.write_event("first_sample", rank=report.rank, forward=True)
        return actions.all()

    def check(
        self, ended: Hashable, jobs: Set[str], pulses: Mapping[str, Pulse], now: float
    ) -> list[Action]:
        """Returns a warning once at half the timeout, and the failure of the run at each check after the timeout.

        Args:
            ended: Changes whenever a simulation or a job ends.
            jobs: The connected client jobs.
            pulses: The last heartbeat of each job.
            now: Monotonic seconds.
        """
        counts = [(report.received, report.drawn) for report, _ in self._reports.values()]
        seen = (ended, len(jobs), tuple(map(sum, zip(*counts, strict=True))))
        if self._progressed is None or seen != self._seen or self._supervised(pulses, now):
            self._seen, self._progressed, self._warned = seen, now, False
            return []
        seconds = now - self._progressed
        fatal = seconds > self._timeout
        if not fatal and (self._warned or seconds <= _WARN_SHARE * self._timeout):
            return []
        self._warned = True
        waits = "; ".join(self._waits(jobs, pulses, now))
        text = (
            f"no sample was received, no batch trained and no simulation finished for {seconds:.0f} s "
            f"(server.progress_timeout is {self._timeout:g} s): {waits}"
        )
        return [
            ReportFailure(text) if fatal else WriteEvent("warning", {"message": text}, forward=True)
        ]

    def _supervised(self, pulses: Mapping[str, Pulse], now: float) -> bool:
        """Whether another timeout runs, or a server rank works."""
        solving = any(
            pulse.beat.state == wire.SOLVING and now - pulse.progressed <= self._simulation_timeout
            for pulse in pulses.values()
        )
        working = any(
            report.activity not in _ACTIVITIES and now - heard <= self._timeout
            for report, heard in self._reports.values()
        )
        return solving or working or self._jobs != JobsWaiting()

    def _waits(self, jobs: Set[str], pulses: Mapping[str, Pulse], now: float) -> Iterator[str]:
        """Yields one clause for each part that waits."""
        reports = [self._reports[rank] for rank in sorted(self._reports)]
        if not reports:
            yield "no server rank has reported"
        activities = [report.activity for report, _ in reports]
        yield from dict.fromkeys(_ACTIVITIES[one] for one in activities if one in _ACTIVITIES)
        states = Counter(pulse.beat.state for pulse in pulses.values())
        for state, count in sorted(states.items()):
            yield f"{count} {'client waits' if count == 1 else 'clients wait'} for {_STATES[state]}"
        if not jobs:
            yield "no client is connected"
        for job in sorted(jobs - pulses.keys()):
            yield f"{job} sends no heartbeat"
        for report, heard in reports:
            if now - heard > self._timeout * _WARN_SHARE:
                yield f"rank {report.rank} has sent no report for {now - heard:.0f} s"
            elif report.pending and report.unseen >= report.capacity:
                yield f"the reservoir of rank {report.rank} is full of samples that were not trained"
            elif report.pending:
                yield f"rank {report.rank} stores no more samples before others are trained"


# What a trainer waits for. In every other activity it works, and `RankWatch` watches over it.
_ACTIVITIES = {
    WAITING: "the trainer waits for samples",
    LIMITED: (
        "the trainer waits for new samples, because it has drawn each one as often as "
        "training.max_draws_per_sample allows"
    ),
}
_STATES = {
    wire.SOLVING: "its solver",
    wire.WAITING_FOR_CREDIT: "credit",
    wire.WAITING_FOR_PARAMETERS: "parameters",
}

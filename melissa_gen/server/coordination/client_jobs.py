"""What the control machine knows about the client jobs of a run. Pure: it reads no clock and sends nothing."""

import math
from collections.abc import Set

from melissa_gen.server.coordination.recent_names import RecentNames

__all__ = ["ClientJobs"]


_CHECK_SECONDS = 1e-4
"""Time between two checks of all heartbeats, for each connected job."""


class ClientJobs:
    """The client jobs of a run, from the first message of each to its end. Job names are not reused."""

    def __init__(self) -> None:
        # Job of each client, from the client's hello to the end of the job.
        self._clients: dict[bytes, str] = {}
        # The clients of each job: the same pairs the other way round.
        self._identities: dict[str, list[bytes]] = {}
        # When the first client of each of these jobs has connected (monotonic seconds).
        self._connected: dict[str, float] = {}
        # The last simulation that was issued to each job, from the first issue to the end of the job. The job is
        # solving this one. The reports on its earlier running simulations have not arrived yet.
        self._last_issued: dict[str, int] = {}
        # Jobs that have failed before their first simulation.
        self._failed = RecentNames()
        # Jobs that the launcher was asked to kill and whose end it has not reported.
        self._killed: set[str] = set()
        # Jobs whose end the launcher has reported. The newest suffice: a message of an ended job is late by seconds.
        self._ended = RecentNames()
        self._end_reports = 0
        # When the heartbeats of all jobs were checked last (monotonic seconds).
        self._checked = -math.inf

    @property
    def connected(self) -> Set[str]:
        """Jobs whose client has connected and that have not ended."""
        return self._connected.keys()

    @property
    def end_reports(self) -> int:
        """Reports of ended jobs so far; the launcher ignores a `want` that does not take all of them into account."""
        return self._end_reports

    def job_of(self, client: bytes) -> str | None:
        """Returns the job of a connected client, or None for an unknown client."""
        return self._clients.get(client)

    def ended(self, job: str) -> bool:
        """Whether the launcher has reported the end of a job."""
        return job in self._ended

    def killed(self, job: str) -> bool:
        """Whether the launcher was asked to kill a job whose end it has not reported."""
        return job in self._killed

    def last_issued(self, job: str) -> int | None:
        """Returns the last simulation that was issued to a job, or None."""
        return self._last_issued.get(job)

    def solves(self, job: str, simulation: int) -> bool:
        """Whether a simulation is the last one that was issued to a job."""
        return self._last_issued.get(job) == simulation

    def check_due(self, now: float) -> bool:
        """Whether the heartbeats of all jobs should be checked now; records that they are.

        A check takes about a microsecond for each job. It is due so rarely that it takes a hundredth of the time.

        Args:
            now: Monotonic seconds.
        """
        if now - self._checked < len(self._connected) * _CHECK_SECONDS:
            return False
        self._checked = now
        return True

    def unheard(self, pulses: Set[str], before: float) -> list[str]:
        """Returns the connected jobs that have never sent a heartbeat and are not killed.

        Args:
            pulses: Jobs that have sent one.
            before: Only jobs that have connected before this time count (monotonic seconds).
        """
        return [
            job
            for job, since in self._connected.items()
            if since < before and job not in pulses and job not in self._killed
        ]

    def connect(self, client: bytes, job: str, now: float) -> None:
        """Records that the client of a job has connected, at a time in monotonic seconds."""
        if client not in self._clients:
            self._identities.setdefault(job, []).append(client)
            self._clients[client] = job
        self._connected.setdefault(job, now)

    def issue(self, job: str, simulation: int) -> None:
        """Records that a simulation was issued to a job."""
        self._last_issued[job] = simulation

    def fail(self, job: str) -> bool:
        """Records that a job has failed before its first simulation; returns False if that was known."""
        known = job in self._failed
        self._failed.add(job)
        return not known

    def kill(self, job: str) -> None:
        """Records that the launcher was asked to kill a job."""
        self._killed.add(job)

    def end(self, job: str) -> tuple[bytes, ...]:
        """Records a report of the launcher that a job has ended; returns the clients of the job."""
        self._end_reports += 1
        self._ended.add(job)
        self._killed.discard(job)
        clients = tuple(self._identities.pop(job, ()))
        for client in clients:
            del self._clients[client]
        self._connected.pop(job, None)
        return clients

    def forget_issued(self, job: str) -> bool:
        """Forgets the last simulation of an ended job; returns whether any simulation was issued to the job."""
        return self._last_issued.pop(job, None) is not None

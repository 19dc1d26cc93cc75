"""The state of the job state machine: its limits, the client jobs that run, and the phase of the study."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from melissa_gen.launcher.jobs.events import Finish

__all__ = ["Job", "Limits", "State", "job_name"]

_PREFIX = "client-"


def job_name(number: int) -> str:
    """Returns the name of a client job."""
    return f"{_PREFIX}{number}"


@dataclass(frozen=True)
class Limits:
    """Limits on the number of jobs, and timeouts in seconds.

    Attributes:
        clients: Maximum number of client jobs that run at the same time.
        server_start: Timeout from the start of the server's processes until the launcher can connect to it.
        connect: Timeout from the start of a client job until it connects to the server.
        stop: Timeout for the server to shut down cleanly after a stop request; it writes a checkpoint first.
        exit: Timeout for processes to exit by themselves after the server has finished.
        kill: Delay between SIGTERM and SIGKILL.
        unconnected: Number of consecutive client jobs that may end without connecting before the study fails.
        server_retries: Number of servers that may die or stop responding, and are replaced, before the study fails.
    """

    clients: int
    server_start: float = 120.0
    connect: float = 120.0
    stop: float = 60.0
    exit: float = 10.0
    kill: float = 5.0
    unconnected: int = 3
    server_retries: int = 0


@dataclass(frozen=True)
class Job:
    """A client job that has been started and has not ended.

    Attributes:
        simulation: Number of the simulation that it runs; None in the mode with persistent clients.
        attempt: Number of the attempt at that simulation; None in the mode with persistent clients.
        connect_by: Deadline for connecting to the server; infinite while the job waits in a queue, None once connected.
        kill_at: Time of the next SIGKILL; None unless the job was asked to terminate.
    """

    simulation: int | None
    attempt: int | None
    connect_by: float | None
    kill_at: float | None = None

    @property
    def connected(self) -> bool:
        """Whether the job has connected to the server."""
        return self.connect_by is None


@dataclass(frozen=True)
class State:
    """The state of a study's jobs.

    The phases are:

    - `starting`: the server's job was started and cannot be reached yet.
    - `running`: the server is reachable, and client jobs are started as it requests.
    - `leaving`: the server is shutting down so that another server can replace it.
    - `replacing`: the server has ended, and its clients are being terminated.
    - `ending`: no more jobs are started; running jobs may exit by themselves until `deadline`.
    - `terminating`: SIGTERM was sent to every job.
    - `killing`: SIGKILL was sent to every job.
    - `over`: the study has ended.

    Attributes:
        limits: Limits and timeouts.
        now: Time of the last `Tick`, in seconds of a monotonic clock.
        phase: The phase of the study.
        server: Whether the server's MPI job is running.
        jobs: Running client jobs by name.
        ended: Number of client jobs that were reported to the server as ended.
        next_job: Number of the next client job.
        attempts: Newest attempt that was started, by simulation.
        unconnected: Number of consecutive client jobs that ended without connecting.
        deadline: When the phase times out; None if it has no timeout.
        outcome: How the study ends; None until that is decided.
        interrupted: Whether the user has asked to stop.
        reason: The reason that the server gave for stopping.
        earlier_servers: Number of servers that were started before this one.
        lost: Number of servers that died or stopped responding.
        server_killed: Whether SIGKILL was sent to a server that is being replaced.
    """

    limits: Limits
    now: float
    phase: Literal[
        "starting", "running", "leaving", "replacing", "ending", "terminating", "killing", "over"
    ] = "starting"
    server: bool = True
    jobs: Mapping[str, Job] = field(default_factory=dict)
    ended: int = 0
    next_job: int = 0
    attempts: Mapping[int, int] = field(default_factory=dict)
    unconnected: int = 0
    deadline: float | None = None
    outcome: Finish | None = None
    interrupted: bool = False
    reason: str = ""
    earlier_servers: int = 0
    lost: int = 0
    server_killed: bool = False

    def has_started(self, job: str) -> bool:
        """Whether a client job was started by this launcher or an earlier one of the run."""
        # The name comes from a peer: Python refuses to convert thousands of digits.
        number = re.fullmatch(rf"{_PREFIX}(\d{{1,18}})", job)
        return number is not None and int(number[1]) < self.next_job

    @property
    def waiting_jobs(self) -> dict[str, int]:
        """Numbers of client jobs that have not connected: in the queue of a scheduler, and starting."""
        deadlines = [job.connect_by for job in self.jobs.values() if job.connect_by is not None]
        queued = sum(map(math.isinf, deadlines))
        return {"queued": queued, "starting": len(deadlines) - queued}

"""The events that the job state machine processes and the actions that it returns, as plain data classes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = [
    "Action",
    "Connected",
    "Event",
    "Finish",
    "Interrupt",
    "JobExited",
    "KillAll",
    "KillJob",
    "KillRequested",
    "QueuedJobs",
    "SendToServer",
    "ServerExited",
    "ServerFinished",
    "ServerPreempting",
    "ServerReady",
    "ServerSilent",
    "ServerStopping",
    "StartClient",
    "StartServer",
    "StopClient",
    "StopServer",
    "Tick",
    "WantedJobs",
]


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ServerReady:
    """The server has written its contact file, and the launcher has connected to it."""


@dataclass(frozen=True)
class ServerExited:
    """The server's MPI job has ended.

    Attributes:
        code: Exit status; negative: number of the signal that ended it.
        why: The scheduler's explanation if the job did not end by itself, else "".
        refused: Whether it has refused the study, so that another server would, too.
    """

    code: int
    why: str = ""
    refused: bool = False


@dataclass(frozen=True)
class ServerSilent:
    """No message has arrived from the server for longer than `server.heartbeat_timeout`.

    Attributes:
        seconds: Time since the last message.
    """

    seconds: float


@dataclass(frozen=True)
class ServerStopping:
    """The server has started to stop the study before it is complete."""

    reason: str


@dataclass(frozen=True)
class ServerPreempting:
    """The scheduler will soon end the server's job, for example at its time limit; another server will replace it.

    The launcher or the server itself detects this. The server is asked to write a checkpoint and to exit.
    """

    reason: str


@dataclass(frozen=True)
class ServerFinished:
    """The server is about to write its summary and to exit."""

    status: str
    reason: str = ""


@dataclass(frozen=True)
class WantedJobs:
    """The client jobs that the server wants to have running.

    Attributes:
        ended: Number of reports of ended jobs that the server had processed when it sent this.
        clients: Number of persistent client jobs.
        simulations: Pairs (simulation, attempt) that need a job each, in the mode with one job per simulation.
    """

    ended: int
    clients: int = 0
    simulations: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Connected:
    """A client job has connected to the server."""

    job: str


@dataclass(frozen=True)
class KillRequested:
    """The server requests the end of a client job that stopped responding or whose simulation failed."""

    job: str
    reason: str


@dataclass(frozen=True)
class JobExited:
    """A client job has ended.

    Attributes:
        job: Name of the job.
        code: Exit status; negative: number of the signal that ended it.
        why: The scheduler's explanation if the job did not end by itself, else "".
        ending: The last line of its log if it has failed, else "".
    """

    job: str
    code: int
    why: str = ""
    ending: str = ""


@dataclass(frozen=True)
class QueuedJobs:
    """The set of jobs that wait in the scheduler's queue has changed; all other started jobs are running."""

    jobs: frozenset[str]


@dataclass(frozen=True)
class Interrupt:
    """The user has asked to stop, for example with Ctrl-C: the first time cleanly, the second time immediately."""


@dataclass(frozen=True)
class Tick:
    """Time has passed.

    Attributes:
        now: Current time in seconds of a monotonic clock.
    """

    now: float


Event = (
    ServerReady
    | ServerExited
    | ServerSilent
    | ServerStopping
    | ServerPreempting
    | ServerFinished
    | WantedJobs
    | Connected
    | KillRequested
    | JobExited
    | QueuedJobs
    | Interrupt
    | Tick
)


# --- actions ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StartServer:
    """Start the server's MPI job.

    Attributes:
        resume: Whether the server continues from the newest checkpoint.
    """

    resume: bool = False


@dataclass(frozen=True)
class StartClient:
    """Start a client job.

    Attributes:
        job: Name of the job.
        simulation: The simulation to run; None for a persistent client.
        attempt: The attempt at that simulation; None for a persistent client.
    """

    job: str
    simulation: int | None = None
    attempt: int | None = None


@dataclass(frozen=True)
class StopClient:
    """Send SIGTERM to the processes of a client job."""

    job: str
    reason: str


@dataclass(frozen=True)
class KillJob:
    """Send SIGKILL to all processes of a job that did not exit after SIGTERM."""

    job: str


@dataclass(frozen=True)
class StopServer:
    """Send SIGTERM to the server's processes."""


@dataclass(frozen=True)
class KillAll:
    """Send SIGKILL to every process of every job."""


@dataclass(frozen=True)
class SendToServer:
    """Send a message to the server."""

    message: Mapping[str, Any]


@dataclass(frozen=True)
class Finish:
    """End the study.

    Attributes:
        status: How the study ended.
        message: Why it ended, unless it finished.
        log: Name of the job whose last log lines complete the message; None if no log helps.
    """

    status: Literal["finished", "stopped", "failed", "interrupted"]
    message: str = ""
    log: str | None = None


Action = (
    StartServer | StartClient | StopClient | KillJob | StopServer | KillAll | SendToServer | Finish
)

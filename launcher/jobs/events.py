"""What the job state machine hears (events) and what it wants done (actions): plain values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = [
    "Action",
    "Connected",
    "Event",
    "Finish",
    "InQueue",
    "Interrupt",
    "JobExited",
    "KillAll",
    "KillAsked",
    "KillJob",
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
    "TellServer",
    "Tick",
    "Want",
]


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ServerReady:
    """The server's contact file is there and the launcher has connected to it."""


@dataclass(frozen=True)
class ServerExited:
    """The server's MPI job ended; `why`: what the scheduler says of it, if it did not end by itself."""

    code: int
    why: str = ""


@dataclass(frozen=True)
class ServerSilent:
    """Nothing has been heard from the server for longer than `server.heartbeat_timeout`."""

    seconds: float


@dataclass(frozen=True)
class ServerStopping:
    """The server has begun to end the study before its time."""

    reason: str


@dataclass(frozen=True)
class ServerPreempting:
    """The server's processes will soon be ended from outside (its time limit is near): another one takes over.

    It is told to leave, unless it was it that said so.
    """

    reason: str


@dataclass(frozen=True)
class ServerFinished:
    """The server is about to write its summary and to exit."""

    status: str
    reason: str = ""


@dataclass(frozen=True)
class Want:
    """What the server wants to run: `clients` persistent jobs, or one job for each (simulation, attempt)."""

    ended: int
    clients: int = 0
    simulations: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Connected:
    """A client job has said hello to the server."""

    job: str


@dataclass(frozen=True)
class KillAsked:
    """The server wants a client job ended: it is silent, or its simulation failed."""

    job: str
    reason: str


@dataclass(frozen=True)
class JobExited:
    """A client job ended; `why`: what the scheduler says of it, if it did not end by itself."""

    job: str
    code: int
    why: str = ""


@dataclass(frozen=True)
class InQueue:
    """Which jobs wait in a scheduler's queue now; all others that were started run."""

    jobs: frozenset[str]


@dataclass(frozen=True)
class Interrupt:
    """Ctrl-C: the first asks for a clean stop, the second ends everything now."""


@dataclass(frozen=True)
class Tick:
    """Time has passed; `now` in seconds of any steady clock."""

    now: float


Event = (
    ServerReady
    | ServerExited
    | ServerSilent
    | ServerStopping
    | ServerPreempting
    | ServerFinished
    | Want
    | Connected
    | KillAsked
    | JobExited
    | InQueue
    | Interrupt
    | Tick
)


# --- actions ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StartServer:
    """Start the server's MPI job, from nothing or as the next incarnation of an earlier one."""

    resume: bool = False


@dataclass(frozen=True)
class StartClient:
    """Start a client job, in per-simulation mode for one attempt of one simulation."""

    job: str
    simulation: int | None = None
    attempt: int | None = None


@dataclass(frozen=True)
class StopClient:
    """Ask a client job's processes to end (SIGTERM)."""

    job: str
    reason: str


@dataclass(frozen=True)
class KillJob:
    """End all processes of a job that did not heed the request."""

    job: str


@dataclass(frozen=True)
class StopServer:
    """Ask the server's processes to end (SIGTERM)."""


@dataclass(frozen=True)
class KillAll:
    """End every process of every job."""


@dataclass(frozen=True)
class TellServer:
    """Send a message to the server."""

    message: Mapping[str, Any]


@dataclass(frozen=True)
class Finish:
    """The study is over: `log` names the job whose log ends the sentence."""

    status: Literal["finished", "stopped", "failed", "interrupted"]
    message: str = ""
    log: str | None = None


Action = (
    StartServer | StartClient | StopClient | KillJob | StopServer | KillAll | TellServer | Finish
)

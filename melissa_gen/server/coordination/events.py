"""Events that the control machine handles and actions that it returns, as plain frozen values.

`melissa_gen.server.coordination.machine` turns events into actions. The control thread creates the events from messages
and from the clock, and carries out the actions on sockets and files. A client is identified by the routing identity of
its control socket, which the machine treats as an opaque key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from melissa_gen.protocol import wire
from melissa_gen.protocol.failures import Failure

__all__ = [
    "ACTIVITIES",
    "FINISHING",
    "JOINING",
    "LIMITED",
    "PREPARING",
    "SAVING",
    "TRAINING",
    "VALIDATING",
    "WAITING",
    "Action",
    "AttemptReport",
    "ClientAsks",
    "ClientFailed",
    "ClientHello",
    "Event",
    "FailureReported",
    "ForgetJob",
    "HandoverRequested",
    "JobEnded",
    "JobsWaiting",
    "LastReportsReceived",
    "LauncherHeard",
    "LauncherHello",
    "MessageRefused",
    "Moment",
    "Pulse",
    "RankHello",
    "RankReport",
    "ReportFailure",
    "SamplerFailed",
    "SendClient",
    "SendLauncher",
    "SendRank",
    "ServerEnds",
    "StopClients",
    "StopRequested",
    "Tick",
    "WithholdCredit",
    "WriteEvent",
]


@dataclass(frozen=True)
class Moment:
    """When an event happened.

    Attributes:
        monotonic: Seconds of a steady clock, for timeouts.
        unix: Seconds since the epoch, for the records that outlive the process.
    """

    monotonic: float
    unix: float


@dataclass(frozen=True)
class Pulse:
    """The last heartbeat of a job.

    Attributes:
        beat: The heartbeat.
        heard: Time of its arrival (monotonic seconds).
        progressed: When the job last entered a new time step or waited for the server (monotonic seconds).
    """

    beat: wire.Alive
    heard: float
    progressed: float


# Events from clients.


@dataclass(frozen=True)
class ClientHello:
    """A client job has connected: `ranks` MPI ranks on `host`, with rank 0 in process `pid`."""

    client: bytes
    job: str
    host: str
    pid: int
    ranks: int


@dataclass(frozen=True)
class ClientAsks:
    """A client requests the simulation with this number, or any simulation (`wire.ANY`)."""

    client: bytes
    simulation: int


@dataclass(frozen=True)
class ClientFailed:
    """A client has given up an attempt: the solver itself failed, so that a retry would fail as well.

    Attributes:
        job: The job of the client.
        simulation: Number of the simulation; -1 if the client has failed before its first one.
        attempt: Number of the attempt.
        failure: The reason.
    """

    job: str
    simulation: int
    attempt: int
    failure: Failure


# Events from server ranks.


@dataclass(frozen=True)
class RankHello:
    """A server rank has connected to the control socket."""

    rank: int


@dataclass(frozen=True)
class AttemptReport:
    """The report of a server rank on an attempt whose client has sent everything.

    Attributes:
        simulation: Number of the simulation.
        attempt: Number of the attempt.
        steps: Time steps that the client says it has sent, over all server ranks.
        complete: Samples that this rank has received completely.
        fault: Code of a failure and its field if the blocks of the client's ranks don't cover a field, else empty.
    """

    simulation: int
    attempt: int
    steps: int
    complete: int
    fault: Sequence[str] = ()


WAITING, LIMITED, TRAINING = "waiting", "limited", "training"
VALIDATING, SAVING, FINISHING, JOINING = "validating", "saving", "finishing", "joining"
PREPARING = "preparing"
ACTIVITIES = (WAITING, LIMITED, TRAINING, VALIDATING, SAVING, FINISHING, JOINING, PREPARING)
"""What a server rank does: it waits for samples, has drawn each sample as often as a limit allows, trains a batch,
validates, writes a checkpoint, writes its results, or waits for the other ranks within one of the last three; or it
prepares its training, while clients may already send samples."""


@dataclass(frozen=True)
class RankReport:
    """The periodic report of a server rank.

    Attributes:
        rank: The rank.
        pending: Samples that the rank can't store because its reservoir has no room.
        last: Whether the rank sends no further report.
        first_pass: First-pass losses, each (simulation, loss, excess over the batch's mean).
        finalized: Attempts that have ended since the last report.
        refused: Messages and connections that were refused since the last report.
        received: Samples received so far.
        drawn: Samples drawn for training so far, with repetitions.
        unseen: Stored samples that were never drawn.
        capacity: Samples that the rank can store.
        activity: What the consumer of the samples does.
    """

    rank: int
    pending: int = 0
    last: bool = False
    first_pass: tuple[tuple[int, float, float], ...] = ()
    finalized: tuple[AttemptReport, ...] = ()
    refused: tuple["MessageRefused", ...] = ()
    received: int = 0
    drawn: int = 0
    unseen: int = 0
    capacity: int = 0
    activity: str = WAITING


# Events from the launcher.


@dataclass(frozen=True)
class LauncherHello:
    """The launcher has connected."""


@dataclass(frozen=True)
class LauncherHeard:
    """A message of the launcher without content, which shows that the launcher is alive."""


@dataclass(frozen=True)
class JobsWaiting:
    """Numbers of client jobs that have not connected: in the queue of a scheduler, and starting."""

    queued: int = 0
    starting: int = 0


@dataclass(frozen=True)
class JobEnded:
    """The processes of a client job have ended.

    Attributes:
        job: Name of the job.
        exit_code: Its exit status.
        simulation: The simulation that it was started for, if any.
        ending: The last line of its log if it has failed, or the scheduler's explanation.
    """

    job: str
    exit_code: int
    simulation: int | None = None
    ending: str = ""


@dataclass(frozen=True)
class StopRequested:
    """The run shall stop before it is complete."""

    reason: str


@dataclass(frozen=True)
class HandoverRequested:
    """The server shall save its state and end, so that the next server process continues the run."""

    reason: str


# Events from inside the server.


@dataclass(frozen=True)
class FailureReported:
    """A part of the server has failed, so that the run can't continue."""

    reason: str


@dataclass(frozen=True)
class SamplerFailed:
    """The sampler has raised an error; draws from the prior replace its generation. Repeated until another one."""

    reason: str


@dataclass(frozen=True)
class MessageRefused:
    """Messages were not accepted.

    Attributes:
        source: The sender, for the event log.
        reason: Why they were refused.
        count: Number of messages.
        client: The sender that gets an answer, if any.
        failure: The reason as a code with values, if it has one.
    """

    source: str
    reason: str
    count: int = 1
    client: bytes | None = None
    failure: Failure | None = None


@dataclass(frozen=True)
class ServerEnds:
    """The server ends; nothing is received any more."""


@dataclass(frozen=True)
class Tick:
    """Time has passed: all timeouts are checked.

    Attributes:
        pulses: The last heartbeat of each job.
    """

    pulses: Mapping[str, Pulse] = field(default_factory=dict)


Event = (
    ClientHello
    | ClientAsks
    | ClientFailed
    | RankHello
    | RankReport
    | LauncherHello
    | LauncherHeard
    | JobsWaiting
    | JobEnded
    | StopRequested
    | HandoverRequested
    | FailureReported
    | SamplerFailed
    | MessageRefused
    | ServerEnds
    | Tick
)


# Actions.


@dataclass(frozen=True)
class SendClient:
    """Send a message to a client."""

    client: bytes
    message: wire.Message


@dataclass(frozen=True)
class SendRank:
    """Send a message to a server rank."""

    rank: int
    message: Mapping[str, Any]


@dataclass(frozen=True)
class SendLauncher:
    """Send a message to the launcher, or drop it if no launcher has connected yet."""

    message: Mapping[str, Any]


@dataclass(frozen=True)
class WriteEvent:
    """Write a line to the event log.

    Attributes:
        name: Name of the event.
        fields: Its fields.
        forward: Whether the launcher gets the event too, as soon as it has connected.
    """

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    forward: bool = False


@dataclass(frozen=True)
class ForgetJob:
    """Ignore all further heartbeats of a job: it has ended.

    Attributes:
        job: The job.
        clients: Routing identities of its connections.
    """

    job: str
    clients: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class StopClients:
    """Answer all further heartbeats with a request to end."""

    reason: str


@dataclass(frozen=True)
class WithholdCredit:
    """Set whether a client that waits for credit is waiting for the server, and therefore counts as alive."""

    withheld: bool


@dataclass(frozen=True)
class ReportFailure:
    """The run can't continue: stop it as failed."""

    reason: str


@dataclass(frozen=True)
class LastReportsReceived:
    """All server ranks have sent their last report."""


Action = (
    SendClient
    | SendRank
    | SendLauncher
    | WriteEvent
    | ForgetJob
    | StopClients
    | WithholdCredit
    | ReportFailure
    | LastReportsReceived
)

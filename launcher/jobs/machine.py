"""The jobs of a study as a state machine: (state, event) -> (state, actions).

No process, socket or clock is touched here: time comes in with `Tick`, what should be done goes out as actions, so
that a test drives a study through every fault in microseconds. A job is one MPI job: the server, or one of the
client jobs `client-0`, `client-1`, ...; a restart is a new job with a new name.

The server is declarative. Its `want` says what should run, and how many of the launcher's reports of ended jobs it
had handled when it said so; a want that is older than the newest report might ask for a job that is no longer
needed, so it is ignored and the next one awaited.

A server may be replaced: because it must go (`ServerPreempting`), or because it died or fell silent and there are
`server_retries` left. Its clients are ended with it, and the next incarnation, which goes on from the newest
checkpoint, is started when all of them are gone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from melissa_gen.launcher.jobs.events import (
    Action,
    Connected,
    Event,
    Finish,
    InQueue,
    Interrupt,
    JobExited,
    KillAll,
    KillAsked,
    KillJob,
    ServerExited,
    ServerFinished,
    ServerPreempting,
    ServerReady,
    ServerSilent,
    ServerStopping,
    StartClient,
    StartServer,
    StopClient,
    StopServer,
    TellServer,
    Tick,
    Want,
)
from melissa_gen.protocol.json_messages import EXIT_HANDOVER

__all__ = [
    "Action",
    "Connected",
    "Event",
    "Finish",
    "InQueue",
    "Interrupt",
    "Job",
    "JobExited",
    "KillAll",
    "KillAsked",
    "KillJob",
    "Limits",
    "ServerExited",
    "ServerFinished",
    "ServerPreempting",
    "ServerReady",
    "ServerSilent",
    "ServerStopping",
    "StartClient",
    "StartServer",
    "State",
    "StopClient",
    "StopServer",
    "TellServer",
    "Tick",
    "Want",
    "begin",
    "step",
]

SERVER = "server"


@dataclass(frozen=True)
class Limits:
    """How many jobs at most, and how long to wait for what (seconds).

    Attributes:
        clients: Client jobs that may run at the same time.
        server_start: From the start of the server's processes until it can be reached.
        connect: From the start of a client job until it has said hello.
        stop: For the server to end cleanly once asked (it writes a checkpoint).
        exit: For processes to end by themselves once the server has finished.
        kill: From SIGTERM to SIGKILL.
        unconnected: Client jobs that may end in a row without ever having said hello.
        server_retries: Servers that may die or fall silent, and are started again, before the study fails.
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
    """A client job that runs."""

    simulation: int | None
    attempt: int | None
    connect_by: float | None
    """When it must have said hello; infinite while it waits in a queue, None once it has."""
    kill_at: float | None = None
    """When it is killed; None unless it was asked to end."""

    @property
    def connected(self) -> bool:
        """Whether it has said hello."""
        return self.connect_by is None


@dataclass(frozen=True)
class State:
    """Everything that the launcher knows about its jobs.

    Attributes:
        phase: `starting` (the server), `running`, `leaving` (the server makes way for the next one), `replacing` (it is
            gone, its clients are going), `ending` (no more starts; `deadline` bounds the wait), `terminating` (all
            were asked to end), `killing`, `over`.
        server: Whether the server's MPI job runs.
        jobs: The client jobs that run.
        ended: Client jobs reported to the server as ended.
        next_job: Number of the next client job.
        attempts: The newest attempt started of each simulation.
        unconnected: Client jobs in a row that ended without hello.
        deadline: When the phase is given up.
        outcome: How the study ends, once that is decided.
        interrupted: Whether Ctrl-C was pressed.
        reason: Why the server said that it stops.
        incarnation: Servers started before this one.
        lost: How many of them died or fell silent.
        server_killed: Whether a server that had to go was ended by force.
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
    incarnation: int = 0
    lost: int = 0
    server_killed: bool = False


def begin(
    limits: Limits, now: float, *, resume: bool = False, next_job: int = 0
) -> tuple[State, list[Action]]:
    """Returns the first state and the first actions of a study.

    Args:
        limits: How many, and how long.
        now: Seconds of any steady clock.
        resume: Whether the server goes on from a checkpoint of an earlier launcher's.
        next_job: Number of the first client job.
    """
    state = State(limits, now, deadline=now + limits.server_start, next_job=next_job)
    return state, [StartServer(resume)]


def step(state: State, event: Event) -> tuple[State, list[Action]]:
    """Handles one event.

    Args:
        state: The state before; it is not changed.
        event: What happened.

    Returns:
        The state after, and the actions to carry out, in this order.
    """
    if state.phase == "over":
        return state, []
    turn = _Turn(state)
    _HANDLERS[type(event)](turn, event)
    turn.go_on_when_empty()
    return turn.state, turn.actions


class _Turn:
    """One event's handling: the state as it becomes, and the actions so far."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.actions: list[Action] = []

    def set(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)

    def set_job(self, name: str, job: Job | None) -> None:
        jobs = {key: value for key, value in self.state.jobs.items() if key != name}
        self.set(jobs=jobs if job is None else {**jobs, name: job})

    def tell(self, **message: Any) -> None:
        if self.state.server:
            self.actions.append(TellServer(message))

    def decide(self, outcome: Finish) -> None:
        """The first decision stands; what follows from it is not another one."""
        if self.state.outcome is None:
            self.set(outcome=outcome)

    def end_within(self, seconds: float) -> None:
        """No more starts; wait at most so long for everything to end by itself."""
        deadline = self.state.now + seconds
        if self.state.phase == "ending" and self.state.deadline is not None:
            deadline = min(deadline, self.state.deadline)
        if self.state.phase not in ("terminating", "killing"):
            self.set(phase="ending", deadline=deadline)

    def terminate(self) -> None:
        """Ask everything that still runs to end."""
        if self.state.phase in ("terminating", "killing"):
            return
        self.set(phase="terminating", deadline=self.state.now + self.state.limits.kill)
        for name in self.state.jobs:
            self.actions.append(StopClient(name, "the study ends"))
        if self.state.server:
            self.actions.append(StopServer())

    def kill(self) -> None:
        """End everything now."""
        if self.state.phase != "killing":
            self.set(phase="killing", deadline=self.state.now + self.state.limits.kill)
            self.actions.append(KillAll())

    def stop_job(self, name: str, reason: str) -> None:
        job = self.state.jobs.get(name)
        if job is not None and job.kill_at is None:
            self.set_job(name, replace(job, kill_at=self.state.now + self.state.limits.kill))
            self.actions.append(StopClient(name, reason))

    def replace_server(self) -> None:
        """The server is gone: its clients have nobody to solve for, and another one follows when they are gone."""
        limits = self.state.limits
        self.set(phase="replacing", deadline=self.state.now + limits.exit + limits.kill)
        for name in self.state.jobs:
            self.stop_job(name, "its server is gone")

    def go_on_when_empty(self) -> None:
        """With the last process gone, starts the next server or ends the study."""
        state = self.state
        if state.phase in ("starting", "running", "leaving") or state.server or state.jobs:
            return
        if state.phase == "replacing":
            self.set(
                phase="starting",
                server=True,
                server_killed=False,
                ended=0,
                attempts={},
                unconnected=0,
                reason="",
                incarnation=state.incarnation + 1,
                deadline=state.now + state.limits.server_start,
            )
            self.actions.append(StartServer(resume=True))
            return
        self.actions.append(state.outcome or Finish("stopped"))
        self.set(phase="over", deadline=None)


def _server_ready(turn: _Turn, event: ServerReady) -> None:
    if turn.state.phase == "starting":
        turn.set(phase="running", deadline=None)


def _server_exited(turn: _Turn, event: ServerExited) -> None:
    state = turn.state
    turn.set(server=False)
    message = f"the server ended with {_status(event)} before the study was over"
    if state.phase == "leaving" or (state.phase == "running" and event.code == EXIT_HANDOVER):
        turn.replace_server()
    elif state.phase == "running" or (state.phase == "starting" and state.incarnation > 0):
        if state.lost < state.limits.server_retries:
            turn.set(lost=state.lost + 1)
            turn.replace_server()
        else:
            turn.decide(Finish("failed", message, SERVER))
            turn.kill()
    elif state.phase == "starting":  # a server that never came up will not the next time
        turn.decide(Finish("failed", message, SERVER))
        turn.kill()
    elif state.phase == "ending":
        reason = state.reason
        turn.decide(Finish("failed", f"{reason}; then {message}" if reason else message, SERVER))
        turn.end_within(state.limits.kill)


def _server_silent(turn: _Turn, event: ServerSilent) -> None:
    state = turn.state
    if not state.server:
        return
    if state.phase == "running" and state.lost < state.limits.server_retries:
        turn.set(lost=state.lost + 1, phase="leaving")
        _kill_server(turn)
    elif state.phase in ("running", "ending"):
        message = f"nothing was heard from the server for {event.seconds:.0f} s"
        turn.decide(Finish("failed", message, SERVER))
        turn.kill()


def _server_preempting(turn: _Turn, event: ServerPreempting) -> None:
    if turn.state.phase == "running":
        turn.set(phase="leaving", deadline=turn.state.now + turn.state.limits.stop)
        turn.tell(type="leave", reason=event.reason)


def _kill_server(turn: _Turn) -> None:
    turn.set(server_killed=True, deadline=turn.state.now + turn.state.limits.kill)
    turn.actions.append(KillJob(SERVER))


def _server_stopping(turn: _Turn, event: ServerStopping) -> None:
    if turn.state.phase in ("leaving", "replacing"):  # as it was told to
        return
    turn.set(reason=event.reason)
    turn.end_within(turn.state.limits.stop)


def _server_finished(turn: _Turn, event: ServerFinished) -> None:
    if event.status == "left" and turn.state.phase == "leaving":
        turn.set(deadline=turn.state.now + turn.state.limits.exit)
        return
    reason = event.reason or turn.state.reason
    if event.status == "finished":
        turn.decide(Finish("finished"))
    elif event.status in ("stopped", "left"):
        turn.decide(Finish("stopped", reason or "the server stopped before the study was complete"))
    elif reason:
        turn.decide(Finish("failed", reason))
    else:
        turn.decide(Finish("failed", f"the server ended as {event.status}", SERVER))
    turn.end_within(turn.state.limits.exit)
    if event.status != "finished":  # whoever still solves does it for nobody
        for name in turn.state.jobs:
            turn.stop_job(name, "the study ends")


def _want(turn: _Turn, event: Want) -> None:
    state = turn.state
    if state.phase != "running" or event.ended < state.ended:
        return
    if event.simulations:
        for simulation, attempt in event.simulations:
            newer = attempt > turn.state.attempts.get(simulation, -1)
            if newer and len(turn.state.jobs) < state.limits.clients:
                _start(turn, simulation, attempt)
    else:
        for _ in range(min(state.limits.clients, event.clients) - len(state.jobs)):
            _start(turn, None, None)


def _start(turn: _Turn, simulation: int | None, attempt: int | None) -> None:
    state = turn.state
    name = f"client-{state.next_job}"
    turn.set(next_job=state.next_job + 1)
    if simulation is not None:
        turn.set(attempts={**state.attempts, simulation: attempt})
    turn.set_job(name, Job(simulation, attempt, connect_by=state.now + state.limits.connect))
    turn.actions.append(StartClient(name, simulation, attempt))


def _connected(turn: _Turn, event: Connected) -> None:
    job = turn.state.jobs.get(event.job)
    if job is not None:
        turn.set_job(event.job, replace(job, connect_by=None))
        turn.set(unconnected=0)


def _kill_asked(turn: _Turn, event: KillAsked) -> None:
    turn.stop_job(event.job, event.reason)


def _job_exited(turn: _Turn, event: JobExited) -> None:
    job = turn.state.jobs.get(event.job)
    if job is None:
        return
    turn.set_job(event.job, None)
    turn.set(ended=turn.state.ended + 1)
    turn.tell(
        type="job_ended",
        job=event.job,
        simulation=job.simulation,
        exit_code=event.code,
        connected=job.connected,
    )
    if job.connected or turn.state.phase != "running":
        return
    turn.set(unconnected=turn.state.unconnected + 1)
    if turn.state.unconnected >= turn.state.limits.unconnected:
        message = (
            f"{turn.state.unconnected} client jobs in a row ended before they had asked for a simulation, "
            f"the last one with {_status(event)}"
        )
        turn.decide(Finish("failed", message, event.job))
        turn.tell(type="stop", reason=message)
        turn.end_within(turn.state.limits.stop)


def _status(event: ServerExited | JobExited) -> str:
    return f"exit status {event.code}" + (f" ({event.why})" if event.why else "")


def _in_queue(turn: _Turn, event: InQueue) -> None:
    """Who waits in a queue has all the time; it is counted from the moment when the processes start."""
    limits, now = turn.state.limits, turn.state.now
    for name, job in turn.state.jobs.items():
        if name in event.jobs and not job.connected:
            turn.set_job(name, replace(job, connect_by=math.inf))
        elif job.connect_by == math.inf:
            turn.set_job(name, replace(job, connect_by=now + limits.connect))
    if turn.state.phase == "starting":
        waits = SERVER in event.jobs
        if waits:
            turn.set(deadline=math.inf)
        elif turn.state.deadline == math.inf:
            turn.set(deadline=now + limits.server_start)


def _interrupt(turn: _Turn, event: Interrupt) -> None:
    first = not turn.state.interrupted
    turn.set(interrupted=True)
    turn.decide(Finish("interrupted", "interrupted"))
    if not first:
        turn.kill()
    elif turn.state.phase in ("starting", "replacing"):
        turn.terminate()
    else:
        turn.tell(type="stop", reason="interrupted")
        turn.end_within(turn.state.limits.stop)


def _tick(turn: _Turn, event: Tick) -> None:
    turn.set(now=max(event.now, turn.state.now))
    for name, job in turn.state.jobs.items():
        if job.kill_at is not None and turn.state.now >= job.kill_at:
            turn.set_job(name, replace(job, kill_at=turn.state.now + turn.state.limits.kill))
            turn.actions.append(KillJob(name))
        elif job.connect_by is not None and turn.state.now >= job.connect_by:
            turn.stop_job(name, f"no contact within {turn.state.limits.connect:.0f} s")
    deadline, phase = turn.state.deadline, turn.state.phase
    if deadline is None or turn.state.now < deadline:
        return
    if phase == "starting":
        message = f"the server was not ready within {turn.state.limits.server_start:.0f} s"
        turn.decide(Finish("failed", message, SERVER))
        turn.terminate()
    elif phase == "leaving" and not turn.state.server_killed:
        _kill_server(turn)
    elif phase in ("leaving", "replacing"):
        who = SERVER if turn.state.server else ", ".join(turn.state.jobs)
        turn.decide(Finish("failed", f"processes of {who} could not be ended"))
        turn.kill()
    elif phase == "ending":
        if turn.state.server and turn.state.outcome is None:
            message = f"the server did not end within {turn.state.limits.stop:.0f} s"
            turn.decide(Finish("failed", message, SERVER))
        turn.terminate()
    elif phase == "terminating":
        turn.kill()
    elif (
        phase == "killing"
    ):  # stuck in the kernel: nothing ends it, and waiting for it would be for ever
        left = [*turn.state.jobs, *([SERVER] if turn.state.server else [])]
        message = f"processes of {', '.join(left)} could not be ended"
        turn.actions.append(Finish("failed", message))
        turn.set(phase="over", deadline=None)


_HANDLERS: Mapping[type, Any] = {
    ServerReady: _server_ready,
    ServerExited: _server_exited,
    ServerSilent: _server_silent,
    ServerStopping: _server_stopping,
    ServerPreempting: _server_preempting,
    ServerFinished: _server_finished,
    Want: _want,
    Connected: _connected,
    KillAsked: _kill_asked,
    JobExited: _job_exited,
    InQueue: _in_queue,
    Interrupt: _interrupt,
    Tick: _tick,
}

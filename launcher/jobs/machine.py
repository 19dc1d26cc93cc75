"""The job state machine: pure functions that map a state and an event to a new state and a list of actions.

The state machine uses no processes, sockets or clocks. Time arrives as `Tick` events, and everything that must be
done is returned as actions, so tests can simulate any fault without waiting. Each job is one MPI job: the server, or
one of the client jobs `client-0`, `client-1`, ... A restarted client is a new job with a new name.

The server declares which jobs it wants (`WantedJobs`) instead of sending start commands. Each declaration carries
the number of reports of ended jobs that the server had processed when it sent it. A declaration that is older than
the newest report is ignored, because it may request a job that is no longer needed; the server sends a new one after
it has processed the report.

A server is replaced if its own job is about to be ended (`ServerPreempting`), or if it dies or stops responding while
fewer than `server_retries` servers were lost. The clients of the old server are terminated. Once all of them have
ended, the next server is started and continues from the newest checkpoint.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from melissa_gen.exit_status import status_with_cause
from melissa_gen.launcher.backends.base import SERVER
from melissa_gen.launcher.jobs.events import (
    Action,
    Connected,
    Event,
    Finish,
    Interrupt,
    JobExited,
    KillAll,
    KillJob,
    KillRequested,
    QueuedJobs,
    SendToServer,
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
    Tick,
    WantedJobs,
)
from melissa_gen.launcher.jobs.state import Job, Limits, State, job_name
from melissa_gen.protocol.json_messages import EXIT_HANDOVER

__all__ = [
    "Action",
    "Connected",
    "Event",
    "Finish",
    "Interrupt",
    "Job",
    "JobExited",
    "KillAll",
    "KillJob",
    "KillRequested",
    "Limits",
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
    "State",
    "StopClient",
    "StopServer",
    "Tick",
    "WantedJobs",
    "begin",
    "step",
]


def begin(
    limits: Limits, now: float, *, resume: bool = False, next_job: int = 0
) -> tuple[State, list[Action]]:
    """Returns the initial state of a study and its first actions.

    Args:
        limits: Limits on the number of jobs, and timeouts.
        now: Current time in seconds of a monotonic clock.
        resume: Whether the server continues from a checkpoint of an earlier run.
        next_job: Number of the first client job.

    Returns:
        The initial state, and the action that starts the server.
    """
    state = State(limits, now, deadline=now + limits.server_start, next_job=next_job)
    return state, [StartServer(resume)]


def step(state: State, event: Event) -> tuple[State, list[Action]]:
    """Processes one event.

    Args:
        state: The current state; it is not modified.
        event: The event.

    Returns:
        The new state, and the actions to execute in order.
    """
    if state.phase == "over":
        return state, []
    transition = _Transition(state)
    _HANDLERS[type(event)](transition, event)
    transition.advance_when_all_ended()
    return transition.state, transition.actions


class _Transition:
    """Collects the changes of state and the actions that result from one event."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.actions: list[Action] = []
        # The jobs and attempts of the new state, once one of them has changed: they are copied once per event.
        self._jobs: dict[str, Job] | None = None
        self._attempts: dict[int, int] | None = None

    def set(self, **changes: Any) -> None:
        """Replaces attributes of the state."""
        self.state = replace(self.state, **changes)

    def set_job(self, name: str, job: Job | None) -> None:
        """Sets the state of a client job, or removes the job if `job` is None."""
        if self._jobs is None:
            self._jobs = dict(self.state.jobs)
            self.set(jobs=self._jobs)
        if job is None:
            self._jobs.pop(name, None)
        else:
            self._jobs[name] = job

    def set_attempt(self, simulation: int, attempt: int) -> None:
        """Sets the newest attempt at a simulation that was started."""
        if self._attempts is None:
            self._attempts = dict(self.state.attempts)
            self.set(attempts=self._attempts)
        self._attempts[simulation] = attempt

    def send(self, **message: Any) -> None:
        """Sends a message to the server if it is running."""
        if self.state.server:
            self.actions.append(SendToServer(message))

    def decide(self, outcome: Finish) -> None:
        """Sets the outcome of the study; later failures are consequences of the first and do not replace it."""
        if self.state.outcome is None:
            self.set(outcome=outcome)

    def end_within(self, seconds: float) -> None:
        """Starts no more jobs and gives the running ones a number of seconds to exit by themselves."""
        deadline = self.state.now + seconds
        if self.state.phase == "ending" and self.state.deadline is not None:
            deadline = min(deadline, self.state.deadline)
        if self.state.phase not in ("terminating", "killing"):
            self.set(phase="ending", deadline=deadline)

    def terminate(self) -> None:
        """Sends SIGTERM to every running job."""
        if self.state.phase in ("terminating", "killing"):
            return
        self.set(phase="terminating", deadline=self.state.now + self.state.limits.kill)
        for name in self.state.jobs:
            self.actions.append(StopClient(name, "the study ends"))
        if self.state.server:
            self.actions.append(StopServer())

    def kill(self) -> None:
        """Sends SIGKILL to every running job."""
        if self.state.phase != "killing":
            self.set(phase="killing", deadline=self.state.now + self.state.limits.kill)
            self.actions.append(KillAll())

    def stop_job(self, name: str, reason: str) -> None:
        """Sends SIGTERM to a client job, and schedules its SIGKILL."""
        job = self.state.jobs.get(name)
        if job is not None and job.kill_at is None:
            self.set_job(name, replace(job, kill_at=self.state.now + self.state.limits.kill))
            self.actions.append(StopClient(name, reason))

    def replace_server(self) -> None:
        """Terminates the clients of a server that has ended; the next server is started once they have ended."""
        limits = self.state.limits
        self.set(phase="replacing", deadline=self.state.now + limits.exit + limits.kill)
        for name in self.state.jobs:
            self.stop_job(name, "its server has ended")

    def advance_when_all_ended(self) -> None:
        """Starts the next server, or ends the study, once no job is running."""
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
                earlier_servers=state.earlier_servers + 1,
                deadline=state.now + state.limits.server_start,
            )
            self.actions.append(StartServer(resume=True))
            return
        self.actions.append(state.outcome or Finish("stopped"))
        self.set(phase="over", deadline=None)


def _server_ready(transition: _Transition, event: ServerReady) -> None:
    if transition.state.phase == "starting":
        transition.set(phase="running", deadline=None)


def _server_exited(transition: _Transition, event: ServerExited) -> None:
    state = transition.state
    transition.set(server=False)
    message = f"the server ended with {_exit_text(event)} before the study was over"
    if event.refused:
        # Clients may already solve the first simulations, whose samples no server will receive.
        transition.decide(Finish("failed", message, SERVER))
        transition.kill()
    elif state.phase == "leaving" or (state.phase == "running" and event.code == EXIT_HANDOVER):
        transition.replace_server()
    elif state.phase == "running" or (state.phase == "starting" and state.earlier_servers > 0):
        if state.lost < state.limits.server_retries:
            transition.set(lost=state.lost + 1)
            transition.replace_server()
        else:
            transition.decide(Finish("failed", message, SERVER))
            transition.kill()
    elif state.phase == "starting":
        # The first server never became ready, so another attempt would most likely fail in the same way.
        transition.decide(Finish("failed", message, SERVER))
        transition.kill()
    elif state.phase == "ending":
        reason = state.reason
        transition.decide(
            Finish("failed", f"{reason}; then {message}" if reason else message, SERVER)
        )
        transition.end_within(state.limits.kill)


def _server_silent(transition: _Transition, event: ServerSilent) -> None:
    state = transition.state
    if not state.server:
        return
    if state.phase == "running" and state.lost < state.limits.server_retries:
        transition.set(lost=state.lost + 1, phase="leaving")
        _kill_server(transition)
    elif state.phase in ("running", "ending"):
        message = f"received no message from the server for {event.seconds:.0f} s"
        transition.decide(Finish("failed", message, SERVER))
        transition.kill()


def _server_preempting(transition: _Transition, event: ServerPreempting) -> None:
    if transition.state.phase == "running":
        transition.set(
            phase="leaving", deadline=transition.state.now + transition.state.limits.stop
        )
        transition.send(type="leave", reason=event.reason)


def _kill_server(transition: _Transition) -> None:
    transition.set(server_killed=True, deadline=transition.state.now + transition.state.limits.kill)
    transition.actions.append(KillJob(SERVER))


def _server_stopping(transition: _Transition, event: ServerStopping) -> None:
    if transition.state.phase in ("leaving", "replacing"):
        # The launcher asked this server to leave, so the study itself does not stop.
        return
    transition.set(reason=event.reason)
    transition.end_within(transition.state.limits.stop)


def _server_finished(transition: _Transition, event: ServerFinished) -> None:
    if event.status == "left" and transition.state.phase == "leaving":
        transition.set(deadline=transition.state.now + transition.state.limits.exit)
        return
    reason = event.reason or transition.state.reason
    if event.status == "finished":
        transition.decide(Finish("finished"))
    elif event.status in ("stopped", "left"):
        transition.decide(
            Finish("stopped", reason or "the server stopped before the study was complete")
        )
    elif reason:
        transition.decide(Finish("failed", reason))
    else:
        transition.decide(Finish("failed", f"the server ended as {event.status}", SERVER))
    transition.end_within(transition.state.limits.exit)
    if event.status != "finished":
        # The server accepts no more samples, so the remaining simulations are useless.
        for name in transition.state.jobs:
            transition.stop_job(name, "the study ends")


def _wanted_jobs(transition: _Transition, event: WantedJobs) -> None:
    state = transition.state
    if state.phase != "running" or event.ended < state.ended:
        return
    if event.simulations:
        # A simulation that the server does not name any more, and that no job solves, is over.
        named = {simulation for simulation, _ in event.simulations}
        named.update(job.simulation for job in state.jobs.values() if job.simulation is not None)
        attempts = {number: n for number, n in state.attempts.items() if number in named}
        transition.set(attempts=attempts)
        for simulation, attempt in event.simulations:
            newer = attempt > transition.state.attempts.get(simulation, -1)
            if newer and len(transition.state.jobs) < state.limits.clients:
                _start(transition, simulation, attempt)
    else:
        for _ in range(min(state.limits.clients, event.clients) - len(state.jobs)):
            _start(transition, None, None)


def _start(transition: _Transition, simulation: int | None, attempt: int | None) -> None:
    state = transition.state
    name = job_name(state.next_job)
    transition.set(next_job=state.next_job + 1)
    if simulation is not None and attempt is not None:
        transition.set_attempt(simulation, attempt)
    transition.set_job(name, Job(simulation, attempt, connect_by=state.now + state.limits.connect))
    transition.actions.append(StartClient(name, simulation, attempt))


def _connected(transition: _Transition, event: Connected) -> None:
    job = transition.state.jobs.get(event.job)
    if job is not None:
        transition.set_job(event.job, replace(job, connect_by=None))
        transition.set(unconnected=0)


def _kill_requested(transition: _Transition, event: KillRequested) -> None:
    state = transition.state
    if event.job in state.jobs:
        transition.stop_job(event.job, event.reason)
    elif not state.has_started(event.job):
        # A client that was started by hand. The server waits for the report of its end.
        transition.set(ended=state.ended + 1)
        transition.send(
            type="job_ended",
            job=event.job,
            simulation=None,
            exit_code=1,
            connected=True,
            ending="this launcher has not started it",
        )


def _job_exited(transition: _Transition, event: JobExited) -> None:
    job = transition.state.jobs.get(event.job)
    if job is None:
        return
    transition.set_job(event.job, None)
    transition.set(ended=transition.state.ended + 1)
    transition.send(
        type="job_ended",
        job=event.job,
        simulation=job.simulation,
        exit_code=event.code,
        connected=job.connected,
        ending=event.why or event.ending,
    )
    if job.connected or transition.state.phase != "running":
        return
    transition.set(unconnected=transition.state.unconnected + 1)
    if transition.state.unconnected >= transition.state.limits.unconnected:
        message = (
            f"{transition.state.unconnected} client jobs in a row ended before they had asked for a simulation, "
            f"the last one with {_exit_text(event, stopped=job.kill_at is not None)}"
        )
        if event.code == 0:
            message += _NEVER_ASKED
        transition.decide(Finish("failed", message, event.job))
        transition.send(type="stop", reason=message)
        transition.end_within(transition.state.limits.stop)


_NEVER_ASKED = (
    "; a solver opens a Client and asks it for simulations "
    "(Python: 'for simulation in client:'; C and Fortran: mg_next; a program that can't: simulation.bridge)"
)


def _exit_text(event: ServerExited | JobExited, *, stopped: bool = False) -> str:
    """Returns the exit status of a job with what it means; the launcher itself has ended a job that was `stopped`."""
    if event.why:
        # The scheduler knows more than the exit status says.
        return f"exit status {event.code} ({event.why})"
    return f"exit status {event.code if stopped else status_with_cause(event.code)}"


def _queued_jobs(transition: _Transition, event: QueuedJobs) -> None:
    """Suspends the start-up timeouts of queued jobs; they begin when the job leaves the queue."""
    limits, now = transition.state.limits, transition.state.now
    for name, job in transition.state.jobs.items():
        if name in event.jobs and not job.connected:
            transition.set_job(name, replace(job, connect_by=math.inf))
        elif job.connect_by == math.inf:
            transition.set_job(name, replace(job, connect_by=now + limits.connect))
    if transition.state.phase == "starting":
        if SERVER in event.jobs:
            transition.set(deadline=math.inf)
        elif transition.state.deadline == math.inf:
            transition.set(deadline=now + limits.server_start)


def _interrupt(transition: _Transition, event: Interrupt) -> None:
    first = not transition.state.interrupted
    transition.set(interrupted=True)
    transition.decide(Finish("interrupted", "interrupted"))
    if not first:
        transition.kill()
    elif transition.state.phase in ("starting", "replacing"):
        transition.terminate()
    else:
        transition.send(type="stop", reason="interrupted")
        transition.end_within(transition.state.limits.stop)


def _tick(transition: _Transition, event: Tick) -> None:
    transition.set(now=max(event.now, transition.state.now))
    for name, job in transition.state.jobs.items():
        if job.kill_at is not None and transition.state.now >= job.kill_at:
            transition.set_job(
                name, replace(job, kill_at=transition.state.now + transition.state.limits.kill)
            )
            transition.actions.append(KillJob(name))
        elif job.connect_by is not None and transition.state.now >= job.connect_by:
            transition.stop_job(
                name, f"it did not connect within {transition.state.limits.connect:.0f} s"
            )
    deadline, phase = transition.state.deadline, transition.state.phase
    if deadline is None or transition.state.now < deadline:
        return
    if phase == "starting":
        message = f"the server was not ready within {transition.state.limits.server_start:.0f} s"
        transition.decide(Finish("failed", message, SERVER))
        transition.terminate()
    elif phase == "leaving" and not transition.state.server_killed:
        _kill_server(transition)
    elif phase in ("leaving", "replacing"):
        remaining = SERVER if transition.state.server else ", ".join(transition.state.jobs)
        transition.decide(Finish("failed", f"processes of {remaining} could not be killed"))
        transition.kill()
    elif phase == "ending":
        if transition.state.server and transition.state.outcome is None:
            message = f"the server did not end within {transition.state.limits.stop:.0f} s"
            transition.decide(Finish("failed", message, SERVER))
        transition.terminate()
    elif phase == "terminating":
        transition.kill()
    elif phase == "killing":
        # Processes that are blocked in the kernel ignore SIGKILL; waiting for them could take forever.
        names = [*transition.state.jobs, *([SERVER] if transition.state.server else [])]
        message = f"processes of {', '.join(names)} could not be killed"
        transition.actions.append(Finish("failed", message))
        transition.set(phase="over", deadline=None)


_HANDLERS: Mapping[type, Any] = {
    ServerReady: _server_ready,
    ServerExited: _server_exited,
    ServerSilent: _server_silent,
    ServerStopping: _server_stopping,
    ServerPreempting: _server_preempting,
    ServerFinished: _server_finished,
    WantedJobs: _wanted_jobs,
    Connected: _connected,
    KillRequested: _kill_requested,
    JobExited: _job_exited,
    QueuedJobs: _queued_jobs,
    Interrupt: _interrupt,
    Tick: _tick,
}

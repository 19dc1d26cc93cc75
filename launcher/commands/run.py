"""`melissa-gen run`: checks, starts and watches a study to its end.

`run_study` is the whole of it from top to bottom; `_Loop` joins the job state machine to the back end, the server's
socket, the clock and the signals.
"""

import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import zmq
from rich.text import Text

from melissa_gen.builders.prior import check_sampler
from melissa_gen.launcher.backends.base import Backend
from melissa_gen.launcher.backends.local import last_lines
from melissa_gen.launcher.backends.worlds import (
    check_backend,
    client_world,
    make_backend,
    server_world,
    solver_command,
)
from melissa_gen.launcher.commands.generate import validation_set
from melissa_gen.launcher.commands.stop import StopRequests
from melissa_gen.launcher.jobs import machine as jobs
from melissa_gen.launcher.jobs.link import ServerLink, event_of
from melissa_gen.launcher.jobs.outcome import complete_summary, exit_status, key_figures
from melissa_gen.launcher.jobs.signals import Signals
from melissa_gen.protocol.contact import Contact, remove_runtime_folder, remove_stale_folders
from melissa_gen.protocol.control import LEFT
from melissa_gen.report.live import LiveView
from melissa_gen.run_dir.checkpoint_folder import newest
from melissa_gen.run_dir.folder import held_run_dir, next_epoch, record_run
from melissa_gen.study import Study

__all__ = ["Past", "carry_out", "run_study"]

POLL_MILLISECONDS = 50
ALIVE_SECONDS = 1.0
SHORTEST_CONNECT = 30.0  # a solver's imports may take longer than its time steps
LOG_LINES = 15


def run_study(study: Study, run_dir: Path, view: LiveView) -> int:
    """Runs a study.

    Args:
        study: The study.
        run_dir: Where everything about the run is written; must not hold one.
        view: Shows the run as it goes.

    Returns:
        The exit status: 0 if the study finished and its accounting adds up, 130 if it was interrupted, else 1.

    Raises:
        MelissaGenError: It could not be started.
    """
    from melissa_gen.builders.memory import check_memory, promised_megabytes

    started = time.monotonic()
    say = view.console.print
    check_sampler(study)
    check_memory(study)
    solver_command(study)
    check_backend(study)
    with held_run_dir(run_dir) as run_dir:
        say(f"run directory {run_dir}", soft_wrap=True, highlight=False)
        promised = promised_megabytes(study)
        say(f"memory: at most {promised:,.0f} MB in each of {study.server.ranks} server rank(s)")
        if study.training.validation.simulations > 0:
            _link(validation_set(study, run_dir.parent / "validation", view), run_dir)
        record_run(study, run_dir)
        return carry_out(study, run_dir, view, Past(started))


@dataclass(frozen=True)
class Past:
    """What was before the jobs are started.

    Attributes:
        started: When the command was (monotonic seconds).
        resume: Whether a run is taken up again.
        seconds: What it had taken before.
        setup_seconds: What it took to its first sample; None where there was none.
        next_job: Number of its next client job.
    """

    started: float
    resume: bool = False
    seconds: float = 0.0
    setup_seconds: float | None = None
    next_job: int = 0


def carry_out(study: Study, run_dir: Path, view: LiveView, past: Past) -> int:
    """Runs the jobs of a study to their end, in a run directory that is held and complete.

    Returns:
        The exit status: 0 if the study finished and its accounting adds up, 130 if it was interrupted, else 1.
    """
    remove_stale_folders()  # of servers that were killed together with their launcher
    backend = make_backend(study, run_dir / "logs")
    loop = _Loop(study, run_dir, backend, view, past)
    try:
        with view, Signals() as signals:
            view.event(_started_event(study))
            finish = loop.run(signals)
    finally:
        loop.close()
    setup = past.setup_seconds
    if setup is None and loop.first_sample is not None:
        setup = past.seconds + loop.first_sample - past.started
    wall = past.seconds + time.monotonic() - past.started
    message = _sentence(study, run_dir, finish)
    summary = complete_summary(run_dir, study.name, finish.status, message, wall, setup)
    code, sentence = exit_status(summary, finish.status)
    _report(run_dir, view)
    for line in key_figures(summary):
        view.console.print(line, highlight=False)
    if summary["status"] != "finished" and newest(run_dir)[0]:
        view.console.print(
            f"to go on     melissa-gen resume {run_dir}", soft_wrap=True, highlight=False
        )
    if sentence:
        name = Text(f"{study.name}:", style="red")
        view.console.print(name, sentence, soft_wrap=True, highlight=False)
    return code


class _Loop:
    """The outer layer of the job state machine: it owns processes, sockets and the clock."""

    def __init__(
        self, study: Study, run_dir: Path, backend: Backend, view: LiveView, past: Past
    ) -> None:
        self.study = study
        self.run_dir = run_dir
        self.backend = backend
        self.view = view
        self.first_sample: float | None = None
        self._contact: Contact | None = None
        self._link: ServerLink | None = None
        self._poller = zmq.Poller()
        self._heard = self._said = self._turned = time.monotonic()
        self._finish: jobs.Finish | None = None
        self._queued: frozenset[str] = frozenset()
        self._longest = 0.0
        self._requests = StopRequests(run_dir)
        self._state, self._first = jobs.begin(
            _limits(study), time.monotonic(), resume=past.resume, next_job=past.next_job
        )

    def run(self, signals: Signals) -> jobs.Finish:
        """Turns until the study is over."""
        self._poller.register(signals.reader, zmq.POLLIN)
        self._carry_out(self._first)
        while self._finish is None:
            self._poller.poll(POLL_MILLISECONDS)
            for _ in range(signals.interrupts()):
                self._interrupt("interrupted; Ctrl-C once more ends everything at once")
            for _ in range(self._requests.interrupts(time.monotonic())):
                self._interrupt("asked to by 'melissa-gen stop'")
            self._connect()
            self._listen()
            self._look_at_queue()
            for name, code, why in self.backend.poll():
                if why:
                    self._warn(f"{name}: {why}")
                if name == jobs.SERVER:
                    self._listen(wait=200)  # its last words come before its end
                    self._forget_server()
                    self._handle(jobs.ServerExited(code, why))
                    if self._state.phase in ("replacing", "starting"):
                        self._tell_replaced(code, why)
                else:
                    self._handle(jobs.JobExited(name, code, why))
            self._keep_time()
        return self._finish

    def close(self) -> None:
        """Ends whatever still runs, and removes what a server that died has left behind."""
        self.backend.close()
        self._forget_server()
        self._requests.close()

    def _forget_server(self) -> None:
        """Puts away what leads to a server that is gone."""
        if self._link is not None:
            self._poller.unregister(self._link.socket)
            self._link.close()
            self._link = None
        (self.run_dir / "contact.json").unlink(missing_ok=True)
        if self._contact is not None:
            remove_runtime_folder(self._contact)
            self._contact = None

    def _handle(self, event: jobs.Event) -> None:
        self._state, actions = jobs.step(self._state, event)
        self._carry_out(actions)

    def _carry_out(self, actions: list[jobs.Action]) -> None:
        for action in actions:
            match action:
                case jobs.StartServer(resume=resume):
                    self._start_server(resume)
                case jobs.StartClient():
                    self._start_client(action)
                case jobs.StopClient(job=name):
                    self.backend.terminate(name)
                case jobs.KillJob(job=name):
                    self.backend.kill(name)
                case jobs.StopServer():
                    self.backend.terminate(jobs.SERVER)
                case jobs.KillAll():
                    self.backend.kill_all()
                case jobs.TellServer(message=message):
                    if self._link is not None:
                        self._link.send(message)
                case jobs.Finish():
                    self._finish = action

    def _look_at_queue(self) -> None:
        for note in self.backend.notes():
            self._warn(note)
        if (queued := self.backend.queued) != self._queued:
            self._queued = queued
            self._handle(jobs.InQueue(queued))

    def _warn(self, text: str) -> None:
        self.view.event({"event": "warning", "time": time.time(), "message": text})

    def _start_server(self, resume: bool) -> None:
        if resume:
            next_epoch(self.run_dir)
        self.backend.start(*server_world(self.study, self.run_dir))

    def _start_client(self, action: jobs.StartClient) -> None:
        contact = self.run_dir / "contact.json"
        self.backend.start(*client_world(self.study, contact, action.job, action.simulation))

    def _connect(self) -> None:
        path = self.run_dir / "contact.json"
        if self._link is not None or not path.exists():
            return
        self._contact = Contact.read(path)
        self._link = ServerLink(self._contact)
        self._poller.register(self._link.socket, zmq.POLLIN)
        self._link.send({"type": "launcher_hello"})
        self._heard = time.monotonic()
        self._handle(jobs.ServerReady())

    def _listen(self, wait: int = 0) -> None:
        if self._link is None:
            return
        if wait:
            self._link.socket.poll(wait)
        for message in self._link.receive():
            self._heard = time.monotonic()
            if message["type"] == "status":
                self._show(message)
            elif message["type"] == "event":
                self.view.event(message)
            elif (event := event_of(message)) is not None:
                if isinstance(event, jobs.ServerStopping) and not self._state.interrupted:
                    self._tell_stopping(event.reason)
                self._handle(event)

    def _show(self, status: dict[str, object]) -> None:
        samples = status.get("samples")
        if self.first_sample is None and isinstance(samples, dict) and samples.get("received"):
            self.first_sample = time.monotonic()
        self.view.update(status)

    def _interrupt(self, reason: str) -> None:
        if not self._state.interrupted:
            self._tell_stopping(reason)
        self._handle(jobs.Interrupt())

    def _tell_replaced(self, code: int, why: str) -> None:
        how = "made way" if code == LEFT else why or f"ended with exit status {code}"
        self._warn(f"the server {how}; another one goes on from its newest checkpoint")

    def _tell_stopping(self, reason: str) -> None:
        self.view.event({"event": "stopping", "time": time.time(), "reason": reason})

    def _keep_time(self) -> None:
        now = time.monotonic()
        if now - self._turned > ALIVE_SECONDS:  # this process was suspended, not the server silent
            self._heard = now
        self._turned = now
        self._handle(jobs.Tick(now))
        if self._link is None:
            return
        if now - self._said >= ALIVE_SECONDS:
            self._said = now
            self._link.send({"type": "alive"})
        self._mind_the_limit()
        if now - self._heard > self.study.server.heartbeat_timeout:
            self._handle(jobs.ServerSilent(now - self._heard))
            self._heard = now

    def _mind_the_limit(self) -> None:
        """Has the server make way, or in an allocation the study end, in good time before the scheduler ends it."""
        left, launcher = self.backend.seconds_left(jobs.SERVER), self.study.launcher
        if left is None or self._link is None or self._state.phase != "running":
            return
        self._longest = max(self._longest, left)
        if left > min(launcher.limit_margin, self._longest / 2):
            return
        self._longest = 0.0
        if launcher.mode == "allocation":
            self._link.send({"type": "stop", "reason": f"the allocation ends in {left:.0f} s"})
        else:
            self._handle(jobs.ServerMustGo(f"its time limit is reached in {left:.0f} s"))


def _limits(study: Study) -> jobs.Limits:
    """How long to wait for what; a scheduler takes its time to start and to end processes, and to tell of it."""
    clients, retries = study.launcher.clients, study.launcher.server_retries
    connect = max(study.simulation.timeout, SHORTEST_CONNECT)
    if study.launcher.backend == "local":
        return jobs.Limits(clients, connect=connect, server_retries=retries)
    slack = 60.0 + 2 * study.launcher.poll
    return jobs.Limits(
        clients,
        server_start=240.0,
        connect=connect + slack,
        exit=slack,
        kill=slack,
        server_retries=retries,
    )


def _started_event(study: Study) -> dict[str, object]:
    return {
        "event": "run_started",
        "time": time.time(),
        "study": study.name,
        "ranks": study.server.ranks,
        "clients": study.launcher.clients,
    }


def _sentence(study: Study, run_dir: Path, finish: jobs.Finish) -> str:
    """Completes the state machine's message with what the job's log has to say."""
    if finish.log is None:
        return finish.message
    log = run_dir / "logs" / f"{finish.log}.log"
    lines = last_lines(log, LOG_LINES)
    if finish.log == jobs.SERVER:
        for line in lines:
            print(f"  server.log | {line}", file=sys.stderr)
        return f"{finish.message}; see {log}" + (f", which ends: {lines[-1]}" if lines else "")
    command = " ".join(study.simulation.command)
    ending = f"its log {log} ends: {lines[-1]}" if lines else f"its log {log} is empty"
    return f"{finish.message}; command: {command}; {ending}"


def _link(source: Path, run_dir: Path) -> None:
    """Puts the validation set into the run directory, without a copy where the disk is the same."""
    target = run_dir / "validation.h5"
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _report(run_dir: Path, view: LiveView) -> None:
    """Writes the report; a report that fails does not change how the study ended."""
    try:
        from melissa_gen.report.html import write_report

        path = write_report(run_dir)
    except Exception as error:
        view.console.print(
            f"no report: {type(error).__name__}: {error}", soft_wrap=True, highlight=False
        )
    else:
        view.console.print(f"report       {path}", soft_wrap=True, highlight=False)

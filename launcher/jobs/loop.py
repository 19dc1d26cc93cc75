"""The launcher's main loop: connects the job state machine to the back end, the server, signals and the clock."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import zmq

from melissa_gen.errors import ProtocolError
from melissa_gen.exit_status import status_of_job, status_with_cause
from melissa_gen.launcher.backends.base import SERVER, Backend, JobExit
from melissa_gen.launcher.backends.local import last_lines, lines_with_those_of_mpirun
from melissa_gen.launcher.jobs import machine
from melissa_gen.launcher.jobs.mpi_jobs import client_mpi_job, server_mpi_job
from melissa_gen.launcher.jobs.server_link import ServerLink, event_of
from melissa_gen.launcher.jobs.signals import Signals
from melissa_gen.launcher.jobs.stop_requests import StopRequests
from melissa_gen.logs import message_of
from melissa_gen.protocol.contact import Contact, remove_runtime_folder
from melissa_gen.protocol.json_messages import EXIT_HANDOVER
from melissa_gen.report.views import RunView
from melissa_gen.run_dir.folder import next_epoch
from melissa_gen.run_dir.server_failure import forget_server_failure, read_server_failure
from melissa_gen.study import Study

__all__ = ["JobLoop", "PreparationError", "limits_of"]

_log = logging.getLogger(__name__)

POLL_MILLISECONDS = 50
ALIVE_SECONDS = 1.0
_LONGEST_ENDING = 300
SHORTEST_CONNECT = 30.0
"""Lower bound of the connect timeout in seconds; importing a solver may take longer than one of its time steps."""


class PreparationError(Exception):
    """What a study still needs is needed no more, because its server has ended or the study was stopped."""


class JobLoop:
    """The main loop of the launcher, which owns the processes, sockets and clock around the job state machine.

    Args:
        study: The study.
        run_dir: The run directory.
        backend: Starts, polls and terminates the jobs.
        view: Displays the progress of the run.
        limits: Limits on the number of jobs, and timeouts.
        resume: Whether the first server continues from a checkpoint.
        next_job: Number of the first client job.
        check: Called between two steps of the loop; an error of it ends the loop.

    Attributes:
        refused: Whether the first server of a new run has refused the study.
        first_client: When the first client job was started (seconds since the epoch), or None.
        first_sample: When the first sample was received (monotonic seconds), or None.
    """

    def __init__(
        self,
        study: Study,
        run_dir: Path,
        backend: Backend,
        view: RunView,
        limits: machine.Limits,
        *,
        resume: bool,
        next_job: int,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.study = study
        self.run_dir = run_dir
        self.backend = backend
        self.view = view
        self.refused = False
        self.first_client: float | None = None
        self.first_sample: float | None = None
        self._contact: Contact | None = None
        self._connection: ServerLink | None = None
        self._poller = zmq.Poller()
        self._last_received = self._last_sent = self._last_iteration = time.monotonic()
        self._finish: machine.Finish | None = None
        self._queued: frozenset[str] = frozenset()
        self._longest_time_left = 0.0
        self._requests = StopRequests(run_dir)
        self._resume, self._check = resume, check
        # What happened between `start` and `run`.
        self._ended_early: list[JobExit] = []
        self._interrupts_early = 0
        self._state, self._first = machine.begin(
            limits, time.monotonic(), resume=resume, next_job=next_job
        )

    def start(self) -> None:
        """Starts the server before `run`, while what it needs later is still made; `check_start` watches over it."""
        first, self._first = self._first, []
        self._execute(first)
        # The time that the server has to become ready begins with `run`, as after a scheduler's queue.
        self._queued = frozenset({SERVER})
        self._handle(machine.QueuedJobs(self._queued))

    def check_start(self) -> None:
        """Checks that what the server needs later is still needed.

        Raises:
            PreparationError: The server has ended, or the study was stopped; `run` responds to it.
        """
        self._ended_early += self.backend.poll()
        self._interrupts_early += self._requests.interrupts(time.monotonic())
        if self._ended_early or self._interrupts_early:
            raise PreparationError

    def end_start(self) -> None:
        """Ends the server of a study that does not run, which cleans up, within the time until it is killed."""
        self.backend.terminate(SERVER)
        until = time.monotonic() + self._state.limits.kill
        while SERVER in self.backend.running and time.monotonic() < until:
            self.backend.poll()
            time.sleep(POLL_MILLISECONDS / 1000)

    def run(self, signals: Signals) -> machine.Finish:
        """Runs until the study has ended.

        Args:
            signals: Signal handlers that are already installed.

        Returns:
            How the study ended.
        """
        self._poller.register(signals.reader, zmq.POLLIN)
        self._execute(self._first)
        self._handle(machine.Tick(time.monotonic()))
        while self._finish is None:
            self._poller.poll(POLL_MILLISECONDS)
            self._check()
            for _ in range(signals.interrupts()):
                self._interrupt("interrupted; press Ctrl-C again to kill all jobs at once")
            early, self._interrupts_early = self._interrupts_early, 0
            for _ in range(early + self._requests.interrupts(time.monotonic())):
                self._interrupt("stopped by 'melissa-gen stop'")
            self._connect()
            self._receive()
            self._check_queue()
            ended = [*self._ended_early, *self.backend.poll()]
            self._ended_early = []
            if not all(self._has_connected(name) for name, *_ in ended):
                # The last messages of the server, or about a client, were sent before the job ended.
                self._receive(wait=200)
            for name, reported, why in ended:
                code = self._status(name, reported)
                if why:
                    self._warn(f"{name}: {why}")
                if name == SERVER:
                    self._disconnect()
                    killed = self._state.server_killed
                    self.refused = self._has_refused()
                    self._handle(machine.ServerExited(code, why, self.refused))
                    if self._state.phase in ("replacing", "starting"):
                        self._show_replaced(code, why, killed=killed)
                else:
                    self._handle(machine.JobExited(name, code, why, self._ending(name, code)))
            self._check_timeouts()
        return self._finish

    def _has_connected(self, name: str) -> bool:
        """Whether the server has said that a client job has asked for a simulation."""
        job = self._state.jobs.get(name)
        return job is not None and job.connected

    def _has_refused(self) -> bool:
        """Whether the server that has ended has refused the study, before any was trained."""
        first = not self._resume and not self._state.earlier_servers
        return first and read_server_failure(self.run_dir).refused

    def close(self) -> None:
        """Kills all running jobs, and removes the files of a server that died."""
        self.backend.close()
        self._disconnect()
        self._requests.close()

    def _disconnect(self) -> None:
        """Closes the connection to a server that has ended, and removes its contact file and sockets."""
        if self._connection is not None:
            self._poller.unregister(self._connection.socket)
            self._connection.close()
            self._connection = None
        (self.run_dir / "contact.json").unlink(missing_ok=True)
        if self._contact is not None:
            remove_runtime_folder(self._contact)
            self._contact = None

    def _handle(self, event: machine.Event) -> None:
        if not isinstance(event, machine.Tick):
            _log.debug("%s", event)
        self._state, actions = machine.step(self._state, event)
        self._execute(actions)

    def _execute(self, actions: list[machine.Action]) -> None:
        for action in actions:
            _log.info("%s", action)
            match action:
                case machine.StartServer(resume=resume):
                    self._start_server(resume)
                case machine.StartClient():
                    self._start_client(action)
                case machine.StopClient(job=name):
                    self.backend.terminate(name)
                case machine.KillJob(job=name):
                    self.backend.kill(name)
                case machine.StopServer():
                    self.backend.terminate(SERVER)
                case machine.KillAll():
                    self.backend.kill_all()
                case machine.SendToServer(message=message):
                    if self._connection is not None:
                        self._connection.send(message)
                case machine.Finish():
                    self._finish = action

    def _check_queue(self) -> None:
        for note in self.backend.notes():
            self._warn(note)
        if (queued := self.backend.queued) != self._queued:
            self._queued = queued
            self._handle(machine.QueuedJobs(queued))

    def _warn(self, text: str) -> None:
        """Logs a warning, which the view also displays."""
        _log.warning("%s", text)

    def _start_server(self, resume: bool) -> None:
        forget_server_failure(self.run_dir)
        if resume:
            next_epoch(self.run_dir)
        self.backend.start(*server_mpi_job(self.study, self.run_dir))

    def _start_client(self, action: machine.StartClient) -> None:
        if self.first_client is None:
            self.first_client = time.time()
        contact = self.run_dir / "contact.json"
        self.backend.start(*client_mpi_job(self.study, contact, action.job, action.simulation))

    def _connect(self) -> None:
        path = self.run_dir / "contact.json"
        if self._connection is not None or not path.exists():
            return
        self._contact = Contact.read(path)
        self._connection = ServerLink(self._contact)
        self._poller.register(self._connection.socket, zmq.POLLIN)
        self._connection.send({"type": "launcher_hello"})
        self._last_received = time.monotonic()
        self._handle(machine.ServerReady())

    def _receive(self, wait: int = 0) -> None:
        if self._connection is None:
            return
        if wait:
            self._connection.socket.poll(wait)
        for message in self._connection.receive():
            self._last_received = time.monotonic()
            if message["type"] == "status":
                self._show(message)
            elif message["type"] == "event":
                if message["event"] == "first_sample" and self.first_sample is None:
                    self.first_sample = time.monotonic()
                self.view.event(message)
            elif (event := self._event_of(message)) is not None:
                if isinstance(event, machine.ServerStopping) and not self._state.interrupted:
                    self._show_stopping(event.reason)
                self._handle(event)

    def _event_of(self, message: Mapping[str, Any]) -> machine.Event | None:
        """Converts a message; one that is incomplete is shown and skipped."""
        try:
            return event_of(message)
        except ProtocolError as error:
            self._warn(str(error))
            return None

    def _show(self, status: dict[str, object]) -> None:
        self.view.update(status)

    def _interrupt(self, reason: str) -> None:
        if not self._state.interrupted:
            self._show_stopping(reason)
        self._handle(machine.Interrupt())

    def _show_replaced(self, code: int, why: str, *, killed: bool) -> None:
        """Warns that another server follows.

        Args:
            code: The exit status of the server.
            why: The scheduler's explanation, or "".
            killed: Whether this process has killed it, so that the cause is known.
        """
        ended = f"ended with exit status {code if killed else status_with_cause(code)}"
        how = "handed over" if code == EXIT_HANDOVER else why or ended
        self._warn(f"the server {how}; another server continues from the newest checkpoint")

    def _show_stopping(self, reason: str) -> None:
        self.view.event({"event": "stopping", "time": time.time(), "reason": reason})

    def _ending(self, job: str, code: int) -> str:
        """Returns the last line of the log of a client job that has failed, else ""."""
        lines = last_lines(self._log_of(job)) if code else []
        return message_of(lines[-1])[:_LONGEST_ENDING] if lines else ""

    def _status(self, job: str, code: int) -> int:
        """Returns the exit status of a job, whose log may say that a signal has ended a rank."""
        lines = lines_with_those_of_mpirun(self._log_of(job)) if code > 0 else []
        return status_of_job(code, lines)

    def _log_of(self, job: str) -> Path:
        return self.run_dir / "logs" / f"{job}.log"

    def _check_timeouts(self) -> None:
        now = time.monotonic()
        if now - self._last_iteration > ALIVE_SECONDS:
            # This process was suspended and could not receive messages, so the silence is not the server's.
            self._last_received = now
        self._last_iteration = now
        self._handle(machine.Tick(now))
        if self._connection is None:
            return
        if now - self._last_sent >= ALIVE_SECONDS:
            self._last_sent = now
            self._connection.send({"type": "alive", **self._state.waiting_jobs})
            self._connection.ping()
        self._check_time_limit()
        if now - self._last_received > self.study.server.heartbeat_timeout:
            self._handle(machine.ServerSilent(now - self._last_received))
            self._last_received = now

    def _check_time_limit(self) -> None:
        """Acts before the server's time limit: replaces the server, or stops the study if it runs in an allocation."""
        left, launcher = self.backend.seconds_left(SERVER), self.study.launcher
        if left is None or self._connection is None or self._state.phase != "running":
            return
        self._longest_time_left = max(self._longest_time_left, left)
        if left > min(launcher.limit_margin, self._longest_time_left / 2):
            return
        self._longest_time_left = 0.0
        if launcher.mode == "allocation":
            self._connection.send(
                {"type": "stop", "reason": f"the allocation ends in {left:.0f} s"}
            )
        else:
            self._handle(machine.ServerPreempting(f"its time limit is reached in {left:.0f} s"))


def limits_of(study: Study) -> machine.Limits:
    """Returns the limits on the number of jobs, and the timeouts.

    Schedulers are slow to start processes, to end them and to report both, so their timeouts are longer.
    """
    clients, retries = study.launcher.clients, study.launcher.server_retries
    connect = study.launcher.connect_timeout or max(study.simulation.timeout, SHORTEST_CONNECT)
    if study.launcher.backend == "local":
        return machine.Limits(clients, connect=connect, server_retries=retries)
    slack = 60.0 + 2 * study.launcher.poll
    return machine.Limits(
        clients,
        server_start=240.0,
        connect=study.launcher.connect_timeout or connect + slack,
        exit=slack,
        kill=slack,
        server_retries=retries,
    )

"""The control thread of rank 0: hands out simulations, listens to ranks and launcher, and knows when all is done."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import zmq

from melissa_gen.errors import ProtocolError
from melissa_gen.protocol import control, wire
from melissa_gen.protocol.contact import Contact
from melissa_gen.server.coordination.fixed_design import FixedDesign
from melissa_gen.server.coordination.heartbeat_thread import HeartbeatThread
from melissa_gen.server.coordination.ledger import AttemptOutcome, Ledger, SimulationRecord
from melissa_gen.server.coordination.proposal_queue import ProposalQueue
from melissa_gen.server.coordination.status import StatusBoard
from melissa_gen.study import Study

__all__ = ["ControlThread"]

_TICK_SECONDS = 0.1
_STATUS_SECONDS = 1.0
_EXIT_GRACE_SECONDS = 3.0
"""After a client ended well, its last messages may still be under way."""
_FAREWELL_SECONDS = 5.0
"""Wait for the last reports of all ranks."""
_LAUNCHER_SECONDS = 60.0
"""The launcher must have said hello by then."""


class ControlThread:
    """Everything that rank 0 decides.

    Args:
        study: The study.
        contact: Secrets of this incarnation.
        socket: The bound control socket.
        heartbeats: Signs of life of the clients.
        ledger: The book of simulations.
        proposals: What comes next.
        board: Puts the status together.
        event: Writes an event.

    Attributes:
        stop_reason: Why the study is stopped early, or None.
        failure: What went wrong so that the study has to stop, or None.
        handing_over: Whether the study goes on with the next incarnation of the server.
        error: What ended the thread, if anything did.
        lock: Held while the thread works on ledger and proposals.
    """

    def __init__(
        self,
        study: Study,
        contact: Contact,
        socket: zmq.Socket[Any],
        heartbeats: HeartbeatThread,
        ledger: Ledger,
        proposals: ProposalQueue | FixedDesign,
        board: StatusBoard,
        event: Callable[..., dict[str, Any]],
    ) -> None:
        self._study, self._contact, self._socket = study, contact, socket
        self._heartbeats, self._ledger, self._proposals = heartbeats, ledger, proposals
        self._board, self._event = board, event
        self.stop_reason: str | None = None
        self.failure: str | None = None
        self.handing_over = False
        self.error: BaseException | None = None
        self.lock = threading.Lock()
        self._launcher: bytes | None = None
        self._before_launcher: deque[dict[str, Any]] = deque(maxlen=100)
        self._launcher_heard = time.monotonic()
        self._ranks: dict[int, bytes] = {}
        self._pending: dict[int, int] = {}
        self._ended_ranks: set[int] = set()
        self._jobs: dict[bytes, str] = {}
        self._asking: list[tuple[bytes, str, int]] = []
        self._leaving: dict[int, tuple[int, str, float]] = {}
        self._killed: set[str] = set()
        self._served: dict[str, int] = {}
        self._jobs_ended = 0
        self._reception_over = False
        self._sampler_failure_told = False
        self._all_reported = threading.Event()
        self._closing = threading.Event()
        self._outbox: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._guarded, name="control", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def wait_for_last_reports(self) -> None:
        """Returns when all ranks have told the end of what they know, or are late with it."""
        self._all_reported.wait(_FAREWELL_SECONDS)

    def finish(self, status: str, reason: str | None = None) -> None:
        """Tells the launcher that the server is about to end, and ends the thread."""
        self._outbox.append({"type": "finished", "status": status, "reason": reason or ""})
        self._closing.set()
        self._thread.join(timeout=30)
        self._socket.close()

    def tell_launcher(self, message: dict[str, Any]) -> None:
        """Queues a message for the launcher (any thread)."""
        self._outbox.append(message)

    def report_failure(self, failure: str) -> None:
        """Stops the study because something failed (any thread)."""
        if self.failure is None:
            self.failure = failure

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:  # the study can't go on without this thread
            self.error = error
            self.failure = f"the control thread failed: {type(error).__name__}: {error}"
            self.stop(self.failure)

    def _run(self) -> None:
        next_status = time.monotonic()
        farewell: float | None = None
        while True:
            closing = self._closing.is_set()
            if self._socket.poll(int(_TICK_SECONDS * 1000)):
                for _ in range(1000):
                    with self.lock:
                        self._receive(self._socket.recv_multipart())
                    if not self._socket.poll(0):
                        break
            now = time.monotonic()
            with self.lock:
                self._tick(now)
            if closing and farewell is None:
                farewell = now + _FAREWELL_SECONDS
            over = farewell is not None and (
                self._ranks.keys() <= self._ended_ranks or now > farewell
            )
            if (now >= next_status and self._board.complete) or over:
                next_status = now + _STATUS_SECONDS
                self._publish_status()
            while self._outbox:
                self._to_launcher(self._outbox.pop(0))
            if over:
                return

    # Messages in.

    def _receive(self, frames: list[bytes]) -> None:
        identity, *rest = frames
        try:
            if rest and rest[0] == control.MARK:
                self._on_json(identity, control.unpack(self._contact.token, rest))
            elif len(rest) == 1:
                self._on_client(identity, rest[0])
            else:
                message = "a control message of neither form"
                raise ProtocolError(message)
        except ProtocolError as error:
            self._refuse("control", str(error))
            self._send(identity, wire.Refused(str(error)))

    def _on_client(self, identity: bytes, frame: bytes) -> None:
        header = wire.decode_header(frame)
        wire.check_peer(header, self._contact.epoch, self._contact.token)
        if header.kind == wire.Hello.KIND:
            self._on_hello(identity, wire.decode(frame, wire.Hello))
            return
        message = wire.decode(frame, wire.Next, wire.Failed)
        if isinstance(message, wire.Failed):
            reason = message.reason
            outcome = self._ledger.failed(
                message.simulation, message.attempt, reason, time.time(), retry=False
            )
            self._settle(outcome)
            return
        if identity not in self._jobs:
            text = "a client that asks for a simulation before it has said hello"
            raise ProtocolError(text)
        job = self._jobs[identity]
        # Not at its hello: one that can't declare its fields would be started again and again.
        self._to_launcher({"type": "connected", "job": job})
        self._asking.append((identity, job, message.simulation))
        self._answer_clients()

    def _on_hello(self, identity: bytes, hello: wire.Hello) -> None:
        if hello.ranks != self._study.simulation.processes:
            text = (
                f"job {hello.job} has {hello.ranks} MPI ranks; the study's simulation.processes is "
                f"{self._study.simulation.processes} (was it started by another MPI's mpirun?)"
            )
            raise ProtocolError(text)
        self._jobs[identity] = hello.job
        study = self._study
        fields = tuple(
            wire.FieldSpec(name, f.dtype, tuple(f.shape))
            for name, f in study.simulation.fields.items()
        )
        self._send(
            identity,
            wire.Welcome(
                study.credit,
                study.server.ranks,
                study.simulation.time_steps,
                study.server.heartbeat,
                study.server.heartbeat_timeout,
                tuple(study.parameters),
                fields,
            ),
        )
        self._event(
            "client_connected", job=hello.job, host=hello.host, pid=hello.pid, ranks=hello.ranks
        )

    def _on_json(self, identity: bytes, message: dict[str, Any]) -> None:
        match message["type"]:
            case "rank_report":
                self._on_report(message)
            case "rank_hello":
                self._ranks[message["rank"]] = identity
                for record in self._ledger.records:
                    self._send_json(identity, _assigned(record))
                if self.stop_reason is not None:
                    self._send_json(identity, {"type": "stop", "reason": self.stop_reason})
                if self._reception_over:
                    self._send_json(identity, {"type": "reception_over"})
            case "launcher_hello":
                self._launcher = identity
                while self._before_launcher:
                    self._send_json(identity, self._before_launcher.popleft())
                self._want()
            case "job_ended":
                self._on_job_ended(message)
            case "leave":
                self.handing_over |= self.stop_reason is None
                self.stop(message.get("reason", "another server takes over"))
            case "stop":
                self.handing_over = False
                self.stop(message.get("reason", "stopped by the launcher"))
        if identity == self._launcher:
            self._launcher_heard = time.monotonic()

    def _on_report(self, report: dict[str, Any]) -> None:
        self._board.report(report)
        self._pending[report["rank"]] = report["pending"]
        self._heartbeats.withholding = any(self._pending.values())
        if report["last"]:
            self._ended_ranks.add(report["rank"])
        self._proposals.add_losses(report["first_pass"])
        for simulation, attempt, steps, complete in report["finalized"]:
            outcome = self._ledger.finalized(
                report["rank"], simulation, attempt, steps, complete, time.time()
            )
            self._settle(outcome)
        if self._ranks.keys() <= self._ended_ranks:
            self._all_reported.set()
        for reason, count in report["refused"].items():
            self._refuse(f"data of rank {report['rank']}", reason, count)

    def _on_job_ended(self, message: dict[str, Any]) -> None:
        self._jobs_ended += 1
        job, code = str(message["job"]), message["exit_code"]
        self._heartbeats.forget(job)
        self._killed.discard(job)
        self._jobs = {i: name for i, name in self._jobs.items() if name != job}
        self._asking = [a for a in self._asking if a[1] != job]
        reason = f"its process ended with exit status {code}"
        self._part_with(job, reason, failed=code != 0)
        simulation = message.get("simulation")
        if job not in self._served and simulation is not None and simulation < self._ledger.drawn:
            self._settle(self._ledger.never_started(simulation, reason, time.time()))
        self._served.pop(job, None)
        self._want()

    # What follows from them.

    def _answer_clients(self) -> None:
        waiting, self._asking = self._asking, []
        for identity, job, asked in waiting:
            if self.stop_reason is not None:
                self._send(identity, wire.Stop(self.stop_reason))
                continue
            record = self._next_record(asked)
            if record is None:
                self._send(identity, wire.Done())
                continue
            attempt = self._ledger.issue(record, job, time.time())
            self._served[job] = record.simulation
            self._proposals.register(record)
            self._send(identity, wire.Simulation(record.simulation, attempt, record.parameters))
            self._event(
                "simulation_issued",
                simulation=record.simulation,
                attempt=attempt,
                job=job,
                parameters=dict(zip(self._study.parameters, record.parameters, strict=True)),
                method=record.method,
                generation=record.generation,
            )

    def _next_record(self, asked: int) -> SimulationRecord | None:
        if asked != wire.ANY:
            return next((r for r in self._ledger.waiting() if r.simulation == asked), None)
        return next(iter(self._ledger.waiting()), None) or self._draw()

    def _draw(self) -> SimulationRecord | None:
        """Turns the next proposal into a simulation and tells all ranks of it."""
        if self._ledger.drawn >= self._ledger.count:
            return None
        proposal = self._proposals.take()
        record = self._ledger.add(*proposal)
        for identity in self._ranks.values():
            self._send_json(identity, _assigned(record))
        return record

    def _part_with(self, job: str, reason: str, *, failed: bool) -> None:
        """A job is gone: what it worked on is lost if it failed, else what it sent last may still be on its way."""
        if self.stop_reason is not None:  # the study is over for all of them
            return
        for record in self._ledger.of_job(job):
            if failed and record.simulation == self._served.get(job):
                self._lost(record, reason)
            else:
                self._leaving[record.simulation] = (record.attempt, reason, time.monotonic())

    def _lost(self, record: SimulationRecord, reason: str) -> None:
        self._leaving.pop(record.simulation, None)
        outcome = self._ledger.failed(
            record.simulation, record.attempt, reason, time.time(), retry=True
        )
        self._event("client_lost", job=record.job, simulation=record.simulation, reason=reason)
        self._settle(outcome)

    def _settle(self, outcome: AttemptOutcome | None) -> None:
        """Follows up the end of an attempt."""
        if outcome is None:
            return
        record = outcome.record
        self._leaving.pop(record.simulation, None)
        closed = {"type": "closed", "simulation": record.simulation, "attempt": record.attempt}
        for identity in self._ranks.values():
            self._send_json(identity, closed)
        if outcome.dropped:
            self._proposals.register(record)  # one that never started is news to the sampler
        if outcome.finished:
            self._event(
                "simulation_finished",
                simulation=record.simulation,
                attempt=record.attempt,
                seconds=outcome.seconds,
                samples=record.samples,
            )
        else:
            event = self._event(
                "simulation_failed",
                simulation=record.simulation,
                attempt=record.attempt,
                reason=outcome.reason,
                dropped=outcome.dropped,
            )
            self._to_launcher(event | {"type": "event"})
        self._want()

    def _want(self) -> None:
        """Tells the launcher what should be running."""
        clients = self._study.launcher.clients
        message: dict[str, Any] = {"type": "want", "ended": self._jobs_ended}
        if self.stop_reason is not None:
            message["clients"], message["simulations"] = 0, []
        elif self._study.simulation.mode == "persistent":
            alive = set(self._jobs.values())
            busy = len({r.job for r in self._ledger.running() if r.job in alive})
            todo = self._ledger.count - self._ledger.drawn + len(self._ledger.waiting())
            message["clients"] = min(clients, busy + todo)  # one more would find nothing to do
        else:
            running = [(r.simulation, r.attempt) for r in self._ledger.running()]
            while len(running) + len(self._ledger.waiting()) < clients and self._draw():
                pass
            waiting = [(r.simulation, r.attempts) for r in self._ledger.waiting()]
            message["simulations"] = (running + waiting)[:clients]
        self._to_launcher(message)

    def stop(self, reason: str) -> None:
        """Stops the study before its end: clients are told, ranks leave their loops."""
        if self.stop_reason is not None:
            return
        self.stop_reason = self._heartbeats.stop_reason = reason
        self._event("stopping", reason=reason)
        kind = "leaving" if self.handing_over else "stopping"
        self._to_launcher({"type": kind, "reason": reason})
        for identity in self._ranks.values():
            self._send_json(identity, {"type": "stop", "reason": reason})
        self._want()
        self._answer_clients()

    def _tick(self, now: float) -> None:
        study = self._study
        if self.failure is not None:
            self.stop(self.failure)
        silence = now - self._launcher_heard
        if self._launcher is None:
            if silence > _LAUNCHER_SECONDS:
                self.stop(f"no launcher has connected for {silence:.0f} s")
        elif silence > study.server.heartbeat_timeout:
            self.stop(f"the launcher has been silent for {silence:.0f} s")
        for job, pulse in list(self._heartbeats.pulses.items()):
            silence, stuck = now - pulse.heard, now - pulse.progressed
            if job in self._killed:
                continue
            if silence > study.server.heartbeat_timeout:
                self._kill(job, f"it has been silent for {silence:.0f} s")
            elif stuck > study.simulation.timeout:
                what = f"time step {pulse.beat.step} of simulation {pulse.beat.simulation}"
                self._kill(job, f"it made no progress in {what} for {stuck:.0f} s")
        for simulation, (attempt, reason, since) in list(self._leaving.items()):
            record = self._ledger.current(simulation, attempt)
            if record is None:
                del self._leaving[simulation]
            elif self._heartbeats.withholding:  # what it sent can't be read before there is room
                self._leaving[simulation] = (attempt, reason, now)
            elif now - since > _EXIT_GRACE_SECONDS:
                self._lost(record, f"{reason} before the simulation was complete")
        for reason in list(self._heartbeats.refused):
            self._refuse("heartbeat", reason, self._heartbeats.refused.pop(reason))
        if self._proposals.error is not None and not self._sampler_failure_told:
            self._sampler_failure_told = True
            text = f"the sampler failed; the prior takes over: {self._proposals.error}"
            self._to_launcher(self._event("warning", message=text) | {"type": "event"})
        if self._ledger.unfinished == 0 and not self._reception_over:
            self._reception_over = True
            self._event("reception_over")
            for identity in self._ranks.values():
                self._send_json(identity, {"type": "reception_over"})

    def _kill(self, job: str, reason: str) -> None:
        self._killed.add(job)
        self._part_with(job, reason, failed=True)
        self._to_launcher({"type": "kill", "job": job, "reason": reason})

    def _publish_status(self) -> None:
        pulses = [pulse.beat for pulse in list(self._heartbeats.pulses.values())]
        status = self._board.status(self._ledger.counts(), self._proposals.statistics(), pulses)
        self._to_launcher(self._event("status", **status) | {"type": "status"})

    def _refuse(self, what: str, reason: str, count: int = 1) -> None:
        event = self._event("refused", what=what, reason=reason, count=count)
        self._to_launcher(event | {"type": "event"})

    # Messages out.

    def _send(self, identity: bytes, message: wire.Message) -> None:
        raw = wire.encode(message, self._contact.epoch, 0, self._contact.token)
        self._send_frames(identity, [raw])

    def _send_json(self, identity: bytes, message: dict[str, Any]) -> None:
        self._send_frames(identity, control.pack(self._contact.token, message))

    def _to_launcher(self, message: dict[str, Any]) -> None:
        if self._launcher is not None:
            self._send_json(self._launcher, message)
        elif message["type"] == "event":  # told as soon as the launcher is there
            self._before_launcher.append(message)

    def _send_frames(self, identity: bytes, frames: list[bytes]) -> None:
        try:
            self._socket.send_multipart([identity, *frames], zmq.NOBLOCK)
        except zmq.ZMQError:  # the peer is gone; its silence will be noticed
            return


def _assigned(record: SimulationRecord) -> dict[str, Any]:
    return {
        "type": "assigned",
        "simulation": record.simulation,
        "parameters": np.asarray(record.parameters).tolist(),
        "weight": record.weight,
    }

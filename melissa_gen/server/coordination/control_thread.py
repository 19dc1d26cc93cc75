"""The control thread of the server: sockets and clock around the control machine.

The thread decodes the messages of clients, server ranks and launcher into events, adds a tick at least every
`ControlTimeouts.poll` seconds, and carries out the actions that the machine returns. All decisions are made in
`melissa_gen.server.coordination.machine`.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, assert_never

import zmq

from melissa_gen.errors import ProtocolError
from melissa_gen.protocol import json_messages, wire
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.failures import Failure
from melissa_gen.protocol.refusals import Refusal
from melissa_gen.protocol.session import Session
from melissa_gen.server.coordination.control_messages import (
    JobOver,
    LauncherAlive,
    LauncherGreets,
    LauncherStops,
    Leave,
    LinkPing,
    RankGreets,
    Report,
    read_control_message,
)
from melissa_gen.server.coordination.events import (
    Action,
    AttemptReport,
    ClientAsks,
    ClientFailed,
    ClientHello,
    Event,
    FailureReported,
    ForgetJob,
    HandoverRequested,
    JobEnded,
    JobsWaiting,
    LastReportsReceived,
    LauncherHeard,
    LauncherHello,
    MessageRefused,
    Moment,
    RankHello,
    RankReport,
    ReportFailure,
    SamplerFailed,
    SendClient,
    SendLauncher,
    SendRank,
    ServerEnds,
    StopClients,
    StopRequested,
    Tick,
    WithholdCredit,
    WriteEvent,
)
from melissa_gen.server.coordination.heartbeat_thread import HeartbeatThread
from melissa_gen.server.coordination.ledger import Ledger
from melissa_gen.server.coordination.machine import ControlMachine
from melissa_gen.server.coordination.proposals import ProposalSource
from melissa_gen.server.coordination.rank_watch import RankWatch
from melissa_gen.server.coordination.recent_names import RecentNames
from melissa_gen.server.coordination.settings import ControlTimeouts, control_settings
from melissa_gen.server.coordination.status import StatusBoard
from melissa_gen.study import Study

__all__ = ["ControlThread"]

_log = logging.getLogger(__name__)

_BURST = 1000
"""Largest number of messages that are handled between two ticks."""
_DEPARTED = 1000
"""Number of clients that have ended whose session is kept."""
_CONFIRMATION_SECONDS = 5.0
"""Longest wait at the end for the launcher's confirmation."""


class ControlThread:
    """Runs the control machine on a thread of its own.

    Args:
        study: The study.
        contact: Secrets of this server process.
        socket: The bound control socket; owned by the thread from `start` on.
        heartbeats: Heartbeats of the clients.
        ledger: The state of all simulations.
        proposals: Source of the parameters of new simulations.
        board: Composes the status.
        event: Writes an event to the event log.
        timeouts: Timeouts; default: those of the study.
        abort: Ends all ranks of the server at once because one of them is lost, and takes the reason; None never does.
        strangers: Returns the refused connections of this process since the last call.
        warnings: Returns the warnings of this process since the last call.

    Attributes:
        failure: The failure because of which the study must stop, or None.
        error: The exception that ended the thread, or None.
        lock: Held while the thread works on ledger and proposals.
    """

    def __init__(
        self,
        study: Study,
        contact: Contact,
        socket: zmq.Socket[Any],
        heartbeats: HeartbeatThread,
        ledger: Ledger,
        proposals: ProposalSource,
        board: StatusBoard,
        event: Callable[..., dict[str, Any]],
        timeouts: ControlTimeouts | None = None,
        abort: Callable[[str], None] | None = None,
        strangers: Callable[[], list[Refusal]] = list,
        warnings: Callable[[], list[str]] = list,
    ) -> None:
        settings = control_settings(study)
        if timeouts is not None:
            settings = replace(settings, timeouts=timeouts)
        self._timeouts, self._ranks_of_server = settings.timeouts, study.server.ranks
        self._machine = ControlMachine(settings, ledger, proposals)
        self._contact, self._socket = contact, socket
        self._heartbeats, self._ledger, self._proposals = heartbeats, ledger, proposals
        self._board, self._event = board, event
        self._watch = RankWatch(self._timeouts.heartbeat, self._timeouts.stall)
        self._abort, self._strangers, self._warnings = abort, strangers, warnings
        self.failure: str | None = None
        self._goal: str | None = None
        self.error: BaseException | None = None
        self.lock = threading.Lock()
        # Routing identity of the launcher, and of each server rank.
        self._launcher: bytes | None = None
        self._ranks: dict[int, bytes] = {}
        self._sessions: dict[bytes, Session[list[bytes]]] = {}
        # Identities of clients whose job has ended; messages of the newest may still be on their way.
        self._departed: deque[bytes] = deque()
        # Events for a launcher that has not connected yet.
        self._before_launcher: deque[dict[str, Any]] = deque(maxlen=100)
        self._outbox: deque[dict[str, Any]] = deque()
        self._last_message: dict[str, Any] = {}
        self._failure_handled = False
        # Warnings of all ranks that have been shown; each text is shown once.
        self._warned = RecentNames()
        self._all_reported = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name="control", daemon=True)

    @property
    def stop_reason(self) -> str | None:
        """The reason why the study stops before its end, or None."""
        return self._machine.stop_reason

    @property
    def goal_reached(self) -> str | None:
        """The sentence of `reach_goal`, if the study stops for that reason and for no other."""
        return self._goal if self._goal == self._machine.stop_reason else None

    @property
    def handing_over(self) -> bool:
        """Whether the next server process continues the study."""
        return self._machine.handing_over

    @property
    def running(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def wait_for_last_reports(self) -> None:
        """Waits until all server ranks have sent their last report, for a bounded time."""
        self._all_reported.wait(self._timeouts.last_reports)

    def finish(self, status: str, reason: str | None = None) -> None:
        """Announces the end of the server to the launcher, and ends the thread."""
        self._last_message = {"type": "finished", "status": status, "reason": reason or ""}
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

    def reach_goal(self, reason: str) -> None:
        """Stops the study because its goal is reached (any thread)."""
        self._goal = reason

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:
            # The study can't continue without this thread.
            self.error = error
            self.failure = f"the control thread failed: {type(error).__name__}: {error}"
            self._handle(FailureReported(self.failure))

    def _run(self) -> None:
        next_status = time.monotonic()
        deadline = math.inf
        while True:
            closing = self._closing.is_set()
            self._receive_burst()
            with self.lock:
                self._tick()
            now = time.monotonic()
            if closing and deadline == math.inf:
                deadline = now + self._timeouts.last_reports
            over = closing and (self._machine.ranks_finished or now > deadline)
            if over:
                self._handle(ServerEnds())
            if (now >= next_status and self._board.complete) or over:
                next_status = now + self._timeouts.status
                self._publish_status()
            while self._outbox:
                self._send_launcher(self._outbox.popleft())
            if over:
                self._send_launcher(self._last_message)
                self._wait_for_launcher()
                return

    def _wait_for_launcher(self) -> None:
        """Waits, for a bounded time, until the launcher has confirmed the last messages."""
        session = self._sessions.get(self._launcher or b"")
        until = time.monotonic() + _CONFIRMATION_SECONDS
        # A peer that numbers no messages does not confirm any.
        while session is not None and session.received and session.unconfirmed:
            if time.monotonic() > until:
                return
            self._receive_burst()

    def _receive_burst(self) -> None:
        """Handles the messages that have arrived; waits for the first one."""
        if not self._socket.poll(int(self._timeouts.poll * 1000)):
            return
        for _ in range(_BURST):
            with self.lock:
                self._receive(self._socket.recv_multipart())
            if not self._socket.poll(0):
                return

    def _tick(self) -> None:
        """Handles requests of other threads, and lets the machine check the timeouts."""
        if self.failure is not None and not self._failure_handled:
            self._failure_handled = True
            self._handle(FailureReported(self.failure))
        if self._goal is not None and self._machine.stop_reason is None:
            self._handle(StopRequested(self._goal))
        for refusal in (*self._heartbeats.take_refused(), *self._strangers()):
            self._handle(MessageRefused(refusal.source, refusal.reason, refusal.count))
        if (sampler := self._proposals.failure) is not None:
            self._handle(SamplerFailed(sampler.reason))
        self._warn(self._warnings())
        self._handle(Tick(dict(self._heartbeats.pulses)))
        self._check_ranks()

    def _check_ranks(self) -> None:
        """Ends the server if one of its ranks is lost: the others would wait for it in a collective."""
        if self._abort is None or (complaint := self._watch.complaint(time.monotonic())) is None:
            return
        self._send_launcher(self._event("warning", message=complaint) | {"type": "event"})
        _log.error("%s", complaint)
        abort, self._abort = self._abort, None
        abort(complaint)

    # Messages in.

    def _receive(self, frames: list[bytes]) -> None:
        identity, *rest = frames
        is_json = bool(rest) and rest[0] == json_messages.MARK
        try:
            if is_json:
                self._on_json(identity, json_messages.unpack(self._contact.token, rest))
            elif len(rest) == 1:
                self._on_client(identity, rest[0])
            else:
                message = "a control message of neither form"
                raise ProtocolError(message)
        except ProtocolError as error:
            # The answer is a binary message, which launcher and ranks do not read.
            client = None if is_json and identity in self._sessions else identity
            self._handle(MessageRefused("control", str(error), client=client))

    def _on_client(self, identity: bytes, frame: bytes) -> None:
        header = wire.decode_header(frame)
        wire.check_peer(header, self._contact.epoch, self._contact.token)
        message = wire.decode_body(header, frame, wire.Hello, wire.Next, wire.Failed, wire.Ping)
        session = self._sessions.setdefault(identity, Session())
        if not session.accept(header.number, header.received):
            return
        if isinstance(message, wire.Ping):
            self._send_frames(identity, [self._encoded(wire.Pong(message.sent), session)])
            self._repeat_lost(identity)
        elif isinstance(message, wire.Hello):
            self._handle(
                ClientHello(identity, message.job, message.host, message.pid, message.ranks)
            )
        elif isinstance(message, wire.Next):
            self._handle(ClientAsks(identity, message.simulation))
        else:
            failure = Failure.received(message.code, message.values)
            self._handle(ClientFailed(message.job, message.simulation, message.attempt, failure))

    def _on_json(self, identity: bytes, message: dict[str, Any]) -> None:
        numbers = json_messages.numbers(message)
        read = read_control_message(message, self._ranks_of_server)
        session = self._sessions.setdefault(identity, Session())
        if not session.accept(*numbers):
            return
        match read:
            case LinkPing(sent=sent):
                self._send_pong(identity, sent)
                self._repeat_lost(identity)
            case Report(rank=rank, last=last):
                self._board.report(read.model_dump(exclude_none=True))
                work = read.turns, read.pieces, read.activity
                self._watch.report(rank, *work, time.monotonic(), last=last)
                self._handle(_rank_report(read))
                self._warn(read.warnings)
                if last:
                    # The rank ends when it knows that its last report has arrived.
                    self._send_pong(identity, 0)
            case RankGreets(rank=rank):
                self._ranks[rank] = identity
                self._handle(RankHello(rank))
            case LauncherGreets():
                self._launcher = identity
                while self._before_launcher:
                    self._send_json(identity, self._before_launcher.popleft())
                self._handle(LauncherHello())
            case JobOver():
                self._handle(JobEnded(read.job, read.exit_code, read.simulation, read.ending))
            case LauncherAlive():
                self._handle(JobsWaiting(read.queued, read.starting))
            case Leave():
                self._handle(HandoverRequested(read.reason))
            case LauncherStops():
                self._handle(StopRequested(read.reason))
            case _:
                assert_never(read)
        if identity == self._launcher:
            self._handle(LauncherHeard())

    def _warn(self, texts: Iterable[str]) -> None:
        """Writes the warnings of a server rank, each text once, and shows them on the terminal."""
        for text in texts:
            if text not in self._warned:
                self._warned.add(text)
                self._send_launcher(self._event("warning", message=text) | {"type": "event"})

    def _handle(self, event: Event) -> None:
        """Lets the machine handle an event, and carries out its actions."""
        for action in self._machine.handle(event, Moment(time.monotonic(), time.time())):
            self._carry_out(action)

    # Actions.

    def _carry_out(self, action: Action) -> None:
        match action:
            case SendClient(client=client, message=message):
                self._send_client(client, message)
            case SendRank(rank=rank, message=content):
                if rank in self._ranks:
                    self._send_json(self._ranks[rank], content)
            case SendLauncher(message=content):
                self._send_launcher(content)
            case WriteEvent(name=name, fields=fields, forward=forward):
                record = self._event(name, **fields)
                if forward:
                    self._send_launcher(record | {"type": "event"})
            case ForgetJob(job=job, clients=clients):
                self._heartbeats.forget(job)
                self._departed.extend(clients)
                while len(self._departed) > _DEPARTED:
                    self._sessions.pop(self._departed.popleft(), None)
            case StopClients(reason=reason):
                self._heartbeats.stop_reason = reason
            case WithholdCredit(withheld=withheld):
                self._heartbeats.withholding = withheld
            case ReportFailure(reason=reason):
                self.report_failure(reason)
            case LastReportsReceived():
                self._all_reported.set()
            case _:
                assert_never(action)

    def _publish_status(self) -> None:
        beats = [pulse.beat for pulse in list(self._heartbeats.pulses.values())]
        status = self._board.status(
            self._ledger.counts(), dict(self._proposals.statistics()), beats
        )
        jobs = self._machine.jobs_waiting
        status["jobs"] = {"queued": jobs.queued, "starting": jobs.starting, "alive": len(beats)}
        self._send_launcher(self._event("status", **status) | {"type": "status"})

    def _send_launcher(self, message: Mapping[str, Any]) -> None:
        """Sends a message to the launcher; keeps events until it has connected, and drops all other messages."""
        if self._launcher is not None:
            self._send_json(self._launcher, message)
        elif message["type"] == "event":
            self._before_launcher.append(dict(message))

    def _send_client(self, identity: bytes, message: wire.Message) -> None:
        session = self._sessions.get(identity)
        if session is None:
            # Nothing that this client sent was accepted.
            self._send_frames(identity, [self._encoded(message, Session())])
            return
        frame = self._encoded(message, session, session.number())
        self._send_frames(identity, session.keep([frame]))

    def _send_json(self, identity: bytes, message: Mapping[str, Any]) -> None:
        session = self._sessions[identity]
        numbers = {"number": session.number(), "received": session.received}
        frames = json_messages.pack(self._contact.token, {**message, **numbers})
        self._send_frames(identity, session.keep(frames))

    def _send_pong(self, identity: bytes, sent: int) -> None:
        received = self._sessions[identity].received
        pong = {"type": "pong", "sent": sent, "received": received}
        self._send_frames(identity, json_messages.pack(self._contact.token, pong))

    def _repeat_lost(self, identity: bytes) -> None:
        for frames in self._sessions[identity].after_ping():
            self._send_frames(identity, frames)

    def _encoded(
        self, message: wire.Message, session: Session[list[bytes]], number: int = 0
    ) -> bytes:
        contact = self._contact
        return wire.encode(message, contact.epoch, 0, contact.token, number, session.received)

    def _send_frames(self, identity: bytes, frames: list[bytes]) -> None:
        try:
            self._socket.send_multipart([identity, *frames], zmq.NOBLOCK)
        except zmq.ZMQError:
            # The peer has disconnected. It gets the message after its next ping, or a timeout detects its end.
            return


def _rank_report(report: Report) -> RankReport:
    """Returns the event of a server rank's report."""
    return RankReport(
        report.rank,
        pending=report.pending,
        last=report.last,
        first_pass=tuple(report.first_pass),
        finalized=tuple(AttemptReport(*attempt) for attempt in report.finalized),
        refused=tuple(MessageRefused(*refused) for refused in report.refused),
        received=report.counters.received,
        drawn=report.reservoir.samples_drawn,
        unseen=report.reservoir.unseen,
        capacity=report.reservoir.capacity,
        activity=report.activity,
    )

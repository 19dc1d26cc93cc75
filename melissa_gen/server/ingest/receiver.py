"""The ingest thread: receives parts of fields, returns credit, and reports to the control process.

It is a thread of the ingest process of a rank that trains, otherwise of the rank itself. It never waits for the
trainer. A sample that the sink can't accept yet stays in its slot, and the credit of its senders is returned later. Who
makes room in the sink wakes the thread through an inproc socket.
"""

import contextlib
import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from melissa_gen.errors import MelissaGenError, ProtocolError
from melissa_gen.protocol import wire
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.json_link import JsonLink
from melissa_gen.protocol.refusals import Refusal, Refusals
from melissa_gen.protocol.sockets import connect_socket
from melissa_gen.reservoir import RowSaver
from melissa_gen.server.ingest.assembler import Assembler, Fate, Sender, Target, WholeSample
from melissa_gen.server.ingest.assignment import Assignment
from melissa_gen.server.ingest.client_sessions import ClientSessions
from melissa_gen.server.ingest.credit import CreditQueue
from melissa_gen.server.ingest.ended_attempts import EndedAttempts
from melissa_gen.server.ingest.shared_clients import SharedClients
from melissa_gen.server.rank_state import RankState
from melissa_gen.server.stopwatch import INGEST_PARTS, Stopwatch
from melissa_gen.sinks import Sink

__all__ = ["STOPPED", "Assignment", "Ingest"]

_log = logging.getLogger(__name__)

_REPORT_SECONDS = 0.25
_BURST = 64
_QUIET_MILLISECONDS = 2
"""Time without messages after which all credit is returned, because clients may be blocked on it."""
_FROM_CLIENTS = (wire.Part, wire.Finalize, wire.Share, wire.Ping, wire.Input)
MEMORY_GRACE_SECONDS = 2.0
"""Time that the last parts of a client that has ended may take to arrive."""
STOPPED = "stopped"
"""Reason of samples that were withdrawn because the study stopped before they were used."""


class Ingest:
    """Receives until the study is over.

    Args:
        context: The process's ZeroMQ context.
        contact: Secrets of this server process.
        data: The bound data socket.
        assembler: Assembles samples from parts.
        sink: Destination of the samples.
        state: State shared with the trainer.
        rank: This server rank.
        time_of: Function from time step to physical time.
        warnings: Returns the warnings of this process since the last call, for the report to the control process.
        strangers: Returns the refused connections of this process since the last call.
        memory_grace: Seconds that the shared memory of a client that has ended stays mapped after its last part.
        report_seconds: Interval between two reports.
        changed: Called by the thread after each turn in which samples may have arrived, and after its end.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        contact: Contact,
        data: zmq.Socket[bytes],
        assembler: Assembler,
        sink: Sink,
        state: RankState,
        rank: int,
        time_of: Callable[[int], float],
        warnings: Callable[[], list[str]] = list,
        strangers: Callable[[], list[Refusal]] = list,
        memory_grace: float = MEMORY_GRACE_SECONDS,
        report_seconds: float = _REPORT_SECONDS,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._contact, self._data = contact, data
        self._assembler, self._sink, self._state = assembler, sink, state
        self._rank, self._time_of, self._warnings = rank, time_of, warnings
        self._report_seconds, self._changed = report_seconds, changed
        self._link = JsonLink(connect_socket(context, contact, contact.control, queue=0), contact)
        self._bell = context.socket(zmq.PULL)
        self._bell.bind(f"inproc://doorbell-{id(self)}")
        self._ringer = context.socket(zmq.PUSH)
        self._ringer.connect(f"inproc://doorbell-{id(self)}")
        self._pending: deque[WholeSample] = deque()
        self._waiting_for_room = False
        # Simulations that are over, and whose parameters are not needed any more.
        self._over: deque[int] = deque()
        self._credit = CreditQueue(assembler.credit)
        self._finalized = EndedAttempts()
        self._refusals, self._strangers = Refusals(), strangers
        self._sessions = ClientSessions()
        self._shared = SharedClients(assembler.chunk_steps, memory_grace)
        self._drained = 0.0
        self._watch = Stopwatch(INGEST_PARTS)
        self._closing = False
        self._rows_file: Path | None = None
        self._snapshots: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._taken: queue.SimpleQueue[tuple[dict[str, Any], RowSaver | None]] = queue.SimpleQueue()
        self._last: tuple[dict[str, Any], RowSaver | None] | None = None
        self._thread = threading.Thread(target=self._guarded, name="ingest", daemon=True)

    @property
    def running(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def mapped_clients(self) -> int:
        """Number of client ranks whose shared memory is mapped."""
        return len(self._shared)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def made_room(self) -> None:
        """Wakes the thread, because waiting samples may fit now (another thread)."""
        if self._waiting_for_room:
            self._waiting_for_room = False
            self._ringer.send(b"")

    def state(self, rows_file: Path | None) -> tuple[dict[str, Any], RowSaver | None]:
        """Returns what a checkpoint contains of assembler and sink, consistent at one instant (another thread).

        Args:
            rows_file: File for the samples in memory, or None if they are not saved.

        Returns:
            The state, and the saver of the samples, whose `run` must be called.
        """
        if self._thread.is_alive():
            self._snapshots.put(rows_file)
            self._ringer.send(b"")
            while self._thread.is_alive():
                with contextlib.suppress(queue.Empty):
                    return self._taken.get(timeout=_REPORT_SECONDS)
        return self._snapshot(rows_file)

    def close(self, rows_file: Path | None = None) -> tuple[dict[str, Any], RowSaver | None]:
        """Ends the thread, after its last report; returns the state before the samples in memory were withdrawn."""
        self._rows_file = rows_file
        self._closing = True
        self._ringer.send(b"")
        self._thread.join(timeout=30)
        for opened in (self._ringer, self._bell, self._data, self._link.socket, self._shared):
            opened.close()
        return self._last or self._snapshot(rows_file)

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self._state.error = error
            # A full disk or a damaged file needs no traceback.
            if not isinstance(error, MelissaGenError):
                _log.exception("ingest has failed")
        self._changed()

    def _run(self) -> None:
        self._link.send({"type": "rank_hello", "rank": self._rank})
        poller = zmq.Poller()
        for opened in (self._link.socket, self._bell, self._data):
            poller.register(opened, zmq.POLLIN)
        data_polled, nothing_yet, reported = True, True, 0.0
        self._watch.start()
        while not self._closing:
            readable = self._has_room()
            if readable != data_polled:
                poller.modify(self._data, zmq.POLLIN if readable else 0)
                data_polled = readable
            patience = _QUIET_MILLISECONDS if self._credit else int(self._report_seconds * 1000)
            self._watch.lap("answering")
            ready = dict(poller.poll(patience))
            self._watch.lap("waiting" if readable and not self._pending else "blocked")
            if self._bell in ready:
                self._bell.recv()
            if self._link.socket in ready:
                self._listen()
            if self._data in ready:
                self._receive_burst()
            elif readable:
                self._drained = time.monotonic()
            self._watch.lap("receiving")
            self._store_pending()
            self._changed()
            self._watch.lap("storing")
            self._drop_assignments()
            self._flush_credit(idle=self._data not in ready)
            while not self._snapshots.empty():
                state, saver = self._snapshot(self._snapshots.get())
                self._sink.store.saver = saver
                self._taken.put((state, saver))
            now = time.monotonic()
            # Rank 0 learns at once when samples begin to arrive.
            first = nothing_yet and self._assembler.counters.received > 0
            if first or now - reported > self._report_seconds or self._finalized.due(self._pending):
                nothing_yet &= not first
                # Without reports, the control process notices that this rank does not run.
                if not self._link.congested and not self._state.frozen():
                    self._report()
                self._link.ping_if_due()
                self._shared.release_ended(self._drained)
                self._sessions.forget_silent(self._shared)
                reported = now
        self._finalize_counters()
        self._report(last=True)
        self._link.flush()

    def _has_room(self) -> bool:
        """Whether a part can be read; if not, the trainer wakes this thread when it has freed rows."""
        if not self._assembler.has_room:
            # Set before the second look, so that rows that are freed in between are noticed.
            self._waiting_for_room = True
        return self._assembler.has_room

    def _finalize_counters(self) -> None:
        """Counts samples that are incomplete, waiting or unused, after training has ended."""
        # No slot is acquired any more: the samples stay in memory although they are withdrawn.
        self._last = self._snapshot(self._rows_file)
        self._assembler.close_all()
        while self._pending:
            self._reject(self._pending.popleft())
        self._sink.close()
        self._assembler.forget(self._sink.unseen().tolist())
        self._sink.withdraw_all(STOPPED)

    def _snapshot(self, rows_file: Path | None) -> tuple[dict[str, Any], RowSaver | None]:
        """Returns the state; samples that wait for room count as stored and unseen, because a restart loses both."""
        waiting = np.array([(w.simulation, w.step) for w in self._pending], np.int64).reshape(-1, 2)
        reservoir = self._sink.state()
        for key in ("stored", "unseen"):
            reservoir["counters"][key] += len(waiting)
        unseen = np.concatenate([self._sink.unseen(), waiting])
        rows = self._sink.rows() if rows_file else None
        saver = RowSaver(self._sink.store, rows, rows_file) if rows and rows_file else None
        return {"assembler": self._assembler.state(unseen), "reservoir": reservoir}, saver

    def _receive_burst(self) -> None:
        for _ in range(_BURST):
            if not self._assembler.has_room:
                return
            try:
                identity = self._data.recv(zmq.NOBLOCK)
            except zmq.Again:
                self._drained = time.monotonic()
                return
            try:
                self._receive(identity)
            except ProtocolError as error:
                self._refusals.add(f"data of rank {self._rank}", str(error))
                self._skip_rest()

    def _skip_rest(self) -> None:
        """Discards the remaining frames of a message."""
        while self._more():
            self._data.recv(copy=False)

    def _more(self) -> bool:
        """Returns whether the message has more frames; the attribute `rcvmore` would take more than twice as long."""
        return bool(self._data.getsockopt(zmq.RCVMORE))

    def _receive(self, identity: bytes) -> None:
        # The identity, which a ROUTER socket adds, is always followed by another frame.
        frame = self._data.recv()
        header = wire.decode_header(frame)
        wire.check_peer(header, self._contact.epoch, self._contact.token)
        message = wire.decode_body(header, frame, *_FROM_CLIENTS)
        session = self._sessions.heard(identity, header, message)
        if not session.accept(header.number, header.received):
            self._skip_rest()
            return
        if isinstance(message, wire.Ping):
            self._answer(identity, wire.Pong(message.sent), ordered=False)
            for lost in session.after_ping():
                self._send_data(identity, lost)
        elif isinstance(message, wire.Share):
            self._share(identity, message)
        elif isinstance(message, wire.Input):
            self._assembler.receive_input(message, header.rank)
        elif isinstance(message, wire.Finalize):
            settled, senders = self._assembler.finalize(message, header.rank)
            self._credit.add(senders)
            if settled is not None:
                self._finalized.add(settled)
        if not isinstance(message, wire.Part):
            self._skip_rest()
            return
        sender = Sender(identity, message.buffer)
        self._sessions.owe(identity, 1)
        self._watch.lap("receiving")
        try:
            place = self._assembler.place(message, header.rank)
        except ProtocolError:
            # Without the credit the client would wait forever.
            self._credit.add([sender])
            raise
        if isinstance(place, Fate):
            self._credit.add([sender])
            self._skip_rest()
            return
        self._watch.lap("assembling")
        whole_payload = self._fill(place, message, identity)
        self._watch.lap("copying")
        if not whole_payload:
            self._credit.add([sender, *self._assembler.damaged(place)])
            text = f"a part of simulation {message.simulation} whose payload has another size than its header says"
            raise ProtocolError(text)
        refused = None
        for whole in self._assembler.received(place, sender):
            if whole.slot is not None:
                self._pending.append(whole)
                continue
            self._credit.add(whole.senders)
            if whole.refusal:
                refused = whole
        self._watch.lap("assembling")
        if refused is not None:
            text = f"sample {refused.step} of simulation {refused.simulation}: {refused.refusal}"
            raise ProtocolError(text)

    def _share(self, identity: bytes, offer: wire.Share) -> None:
        """Maps the shared memory that a client offers; its buffers are then the credit of the client."""
        try:
            if offer.buffers != self._assembler.credit:
                text = f"{offer.buffers} buffers, where the credit is {self._assembler.credit}"
                raise ProtocolError(text)
            self._shared.add(identity, offer)
        except ProtocolError as error:
            self._answer(identity, wire.Refused(str(error)))
            return
        self._answer(identity, wire.Credit(tuple(range(offer.buffers))))

    def _fill(self, target: Target, part: wire.Part, identity: bytes) -> bool:
        """Copies the payload of a part to its destination; returns whether it has the correct size."""
        if identity in self._shared and not self._more():
            return self._shared.read(identity, part.buffer, part.place, target)
        for block, (shape, dtype) in enumerate(target.payload):
            if not self._more():
                return False
            size = math.prod(shape) * dtype.itemsize
            direct = target.direct(block)
            if direct is not None:
                if self._data.recv_into(direct.data) != size:
                    return False
                continue
            frame = self._data.recv(copy=False)
            if len(frame) != size:
                return False
            target.write(block, np.frombuffer(frame.buffer, dtype).reshape(shape))
        return not self._more()

    def _store_pending(self) -> None:
        while self._pending and (self._state.stop_reason is not None or self._sink.closed):
            whole = self._pending.popleft()
            self._reject(whole)
            self._credit.add(whole.senders)
        while self._pending:
            # The samples of an attempt have the same inputs.
            _, same = next(groupby(self._pending, attrgetter("simulation", "attempt")))
            block = list(same)
            stored = self._put(block)
            for _ in range(stored):
                self._credit.add(self._pending.popleft().senders)
            if stored < len(block):
                break
        # After a stop, the trainer may draw another batch: a closed reservoir would lose its samples, which a resumed
        # study reads back.
        if self._state.reception_over and not self._pending and self._state.stop_reason is None:
            self._sink.close()

    def _reject(self, whole: WholeSample) -> None:
        """Drops a sample for good; its simulation is not finished, so that a resumed study solves it again."""
        self._assembler.reject(whole)
        self._finalized.discard(whole)

    def _drop_assignments(self) -> None:
        """Drops the parameters of simulations that are over, unless one of their samples may still wait for room."""
        while self._over and not self._pending:
            self._state.assignments.pop(self._over.popleft(), None)

    def _put(self, whole: Sequence[WholeSample]) -> int:
        """Stores samples of one attempt; returns how many, the first ones."""
        assignment = self._state.assignments.get(whole[0].simulation)
        if assignment is None:
            # The parameters, sent by the control process, have not arrived yet.
            return 0
        block = assignment.block(whole, self._time_of)
        slots = [one.slot for one in whole if one.slot is not None]
        count = self._sink.put_block(slots, block)
        if count < len(slots):
            # Set before the second attempt, so that the trainer wakes this thread if it makes room in between.
            self._waiting_for_room = True
            count += self._sink.put_block(slots[count:], block.after(count))
        return count

    def _flush_credit(self, *, idle: bool) -> None:
        """Returns buffers to clients; if idle, all of them, since clients may be blocked on them."""
        for identity, buffers in self._credit.take_due(idle=idle):
            self._answer(identity, wire.Credit(buffers))
            self._sessions.owe(identity, -len(buffers))

    def _answer(self, identity: bytes, message: wire.Message, *, ordered: bool = True) -> None:
        contact, session = self._contact, self._sessions.get(identity)
        if session is None:
            return
        number = session.number() if ordered else 0
        head = wire.encode(
            message, contact.epoch, self._rank, contact.token, number, session.received
        )
        self._send_data(identity, session.keep(head) if ordered else head)

    def _send_data(self, identity: bytes, frame: bytes) -> None:
        # An error means that the peer has disconnected. It gets the message after its next ping.
        with contextlib.suppress(zmq.ZMQError):
            self._data.send_multipart([identity, frame], zmq.NOBLOCK)

    def _listen(self) -> None:
        for message in self._link.receive():
            match message["type"]:
                case "assigned":
                    self._state.assignments[message["simulation"]] = Assignment.from_message(
                        message
                    )
                case "closed":
                    simulation, attempt = message["simulation"], message["attempt"]
                    self._credit.add(self._assembler.close(simulation, attempt))
                    if message["over"]:
                        self._over.extend(self._assembler.settle(simulation))
                case "reception_over":
                    self._state.reception_over = True
                case "stop":
                    self._state.stop_reason = message["reason"]
                    self._credit.add(self._assembler.close_all())

    def _report(self, *, last: bool = False) -> None:
        self._state.refresh()
        reservoir = self._sink.counters()
        self._link.send(
            {
                "type": "rank_report",
                "rank": self._rank,
                "last": last,
                "counters": self._assembler.counters.as_dict(),
                "reservoir": reservoir
                | {"capacity": self._sink.capacity, "watermark": self._sink.watermark},
                "pending": len(self._pending),
                "training": self._state.training,
                "ingest": {**self._watch.seconds, "drawing": self._state.drawing_seconds},
                "activity": self._state.activity,
                "turns": self._state.turns,
                "pieces": self._state.pieces,
                "finalized": self._finalized.take(self._pending),
                "refused": [r.as_list() for r in (*self._refusals.take(), *self._strangers())],
                "first_pass": self._state.take_first_pass(),
                "saved": list(self._state.saved),
                "warnings": self._warnings(),
            }
        )

"""A server rank without sockets: the records of sessions, parts, samples and credit that its ingest thread keeps."""

import itertools

from melissa_gen.protocol import wire
from melissa_gen.reservoir import SlotStore
from melissa_gen.server.ingest.assembler import Assembler, Fate, Sender
from melissa_gen.server.ingest.client_sessions import ClientSessions
from melissa_gen.server.ingest.credit import CreditQueue
from tests.scale.processes import Process

FIELD = "u"
TOKEN = bytes(16)
EXPECTED = (wire.Part, wire.Finalize, wire.Ping)


class IngestRank:
    """Handles the messages of clients to one server rank.

    A row of the slot store has one value for each client rank, so that the store is small: the size of the real fields
    is only added to the bytes and to the time of a copy.

    Args:
        rank: Number of the rank.
        study: The study.
        slots: Slots of the store.
        queue: Virtual time.
        clock: CPU clock.

    Attributes:
        process: Its load.
        assembler: The real assembler.
        most_slots: Largest number of slots in use.
    """

    def __init__(self, rank, study, slots, queue, clock):
        self.rank, self.process = rank, Process(queue, clock)
        self._ranks, self._queue = study.simulation.processes, queue
        self._store = SlotStore({FIELD: ((self._ranks,), "f4")}, slots, 1)
        self.assembler = Assembler(
            [wire.StudyField(FIELD, "float32", (self._ranks,))],
            study.simulation.time_steps,
            study.simulation.count,
            100,
            rank,
            study.server.ranks,
            self._store,
            study.flow,
        )
        self._sessions = ClientSessions(clock=lambda: queue.now)
        self._credit = CreditQueue(self.assembler.credit)
        self._slots, self.most_slots = slots, 0

    def receive(self, frames, payload):
        """Handles frames that arrive at once, of all ranks of a client.

        Args:
            frames: Pairs of the identity of a socket and a frame.
            payload: Bytes of values that come with each part.

        Returns:
            The buffers to return, by identity, and the ended attempt or None.
        """
        size = sum(len(frame) for _, frame in frames) + payload * len(frames)
        answer = self.process.handle(self._receive, frames, messages=len(frames), size=size)
        answers, returned, ended = answer
        self.process.count(len(answers), sum(map(len, answers)))
        return returned, ended

    def _receive(self, frames):
        answers, ended = [], None
        for identity, frame in frames:
            header = wire.decode_header(frame)
            wire.check_peer(header, 0, TOKEN)
            message = wire.decode_body(header, frame, *EXPECTED)
            session = self._sessions.heard(identity, header, message)
            if not session.accept(header.number, header.received):
                continue
            if isinstance(message, wire.Ping):
                answers.append(wire.encode(wire.Pong(message.sent), 0, self.rank, TOKEN))
            elif isinstance(message, wire.Finalize):
                found, senders = self.assembler.finalize(message, header.rank)
                self._credit.add(senders)
                ended = found or ended
            else:
                self._place(identity, message, header.rank)
        returned = self._credit.take_due(idle=self.process.free_at <= self._queue.now)
        for identity, buffers in returned:
            self._sessions.owe(identity, -len(buffers))
            session = self._sessions.get(identity)
            number = session.number()
            credit = wire.Credit(buffers)
            answers.append(
                session.keep(wire.encode(credit, 0, self.rank, TOKEN, number, session.received))
            )
        return answers, returned, ended

    def _place(self, identity, part, rank):
        sender = Sender(identity, part.buffer)
        self._sessions.owe(identity, 1)
        target = self.assembler.place(part, rank)
        if isinstance(target, Fate):
            self._credit.add([sender])
            return
        self.most_slots = max(self.most_slots, self._slots - self._store.free)
        for whole in self.assembler.received(target, sender):
            # The reservoir takes the sample at once, in exchange for another row.
            if whole.slot is not None:
                self._store.release(whole.slot)
            self._credit.add(whole.senders)

    def close(self, message):
        """Handles the end of an attempt that rank 0 has announced."""
        self.process.handle(self._close, message, messages=1)

    def _close(self, message):
        simulation, attempt = message["simulation"], message["attempt"]
        self._credit.add(self.assembler.close(simulation, attempt))
        if message["over"]:
            self.assembler.settle(simulation)


class Channel:
    """The buffers of a client at a server rank, which all its ranks use in the same way.

    Args:
        flow: Number of buffers, and time steps that each holds.
    """

    def __init__(self, flow):
        self._steps = flow.chunk_steps
        self._free, self._parts = list(range(flow.buffers)), [0] * flow.buffers
        self._current, self._place = None, 0
        self.numbers, self.received = itertools.count(1), 0

    @property
    def has_credit(self):
        """Whether a time step has a place."""
        return self._current is not None or bool(self._free)

    def take(self):
        """Returns buffer and place of the next time step, which is sent at once."""
        if self._current is None:
            self._current, self._place = self._free.pop(), 0
        found = self._current, self._place
        self._parts[self._current] += 1
        self._place += 1
        if self._place == self._steps:
            self._current = None
        return found

    def give_back(self, buffers):
        """Handles a credit message."""
        self.received += 1
        for buffer in buffers:
            self._parts[buffer] -= 1
            if not self._parts[buffer] and buffer != self._current:
                self._free.append(buffer)

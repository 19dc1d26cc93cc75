"""Both ends of the data connection without a study: a stand-in for the control of rank 0, and the ingest of a rank.

Client, wire, credit, ingest thread, assembler and reservoir are the real ones; only what hands out simulations is
replaced, by a thread that always has one more.
"""

import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from melissa_gen.errors import MelissaGenError
from melissa_gen.protocol import json_messages, wire
from melissa_gen.protocol.authenticator import Authenticator
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.shared_memory import this_machine
from melissa_gen.protocol.sockets import bind_socket
from melissa_gen.reservoir import Reservoir, SlotStore
from melissa_gen.server.coordination.heartbeat_thread import HeartbeatThread
from melissa_gen.server.ingest.assembler import Assembler
from melissa_gen.server.ingest.receiver import Ingest
from melissa_gen.server.rank_state import RankState
from melissa_gen.sinks import FanOut, SideSink
from melissa_gen.study.flow import Flow

FIELD = "u"
STEPS = 2000
SIMULATIONS = 100_000
PARAMETERS = ("a", "b", "c", "d", "e")
VALUES = (0.1, 0.2, 0.3, 0.4, 0.5)


def new_contact(transport: str) -> Contact:
    """Makes the secrets of a server on ipc or on tcp; the data are not encrypted."""
    return Contact.new(0, "localhost", ipc=transport == "ipc", encrypt_data=False)


class ControlStandIn:
    """Answers one rank and its clients as rank 0 would, on the same sockets.

    Args:
        contact: Secrets and transport.
        shape: Shape of the only field.
        flow: Buffers of a client, and time steps that each holds.
    """

    def __init__(self, contact: Contact, shape: tuple[int, ...], flow: Flow) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        if not contact.runtime_folder:
            Authenticator(self._context, contact)
        self._socket, where = bind_socket(self._context, contact, "control", "127.0.0.1", queue=0)
        beats, heartbeat = bind_socket(self._context, contact, "heartbeat", "127.0.0.1")
        self.contact = replace(contact, control=where, heartbeat=heartbeat)
        self._heartbeats = HeartbeatThread(self.contact, beats)
        self._welcome = wire.Welcome(
            *flow,
            1,
            STEPS,
            0.05,
            1.0,
            20.0,
            tuple(map(wire.StudyParameter, PARAMETERS)),
            (wire.StudyField(FIELD, "float32", shape),),
        )
        self._rank, self._issued = b"", 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end_clients(self) -> None:
        """Clients end at their next time step or question."""
        self._heartbeats.stop_reason = "the measurement is over"

    def close(self) -> None:
        """Ends the threads."""
        self._closing.set()
        self._thread.join()
        self._heartbeats.close()
        self._socket.close()
        self._context.term()

    def _run(self) -> None:
        while not self._closing.is_set():
            if self._socket.poll(100):
                self._receive(*self._socket.recv_multipart())

    def _receive(self, identity: bytes, *frames: bytes) -> None:
        if frames[0] == json_messages.MARK:
            if json_messages.unpack(self.contact.token, list(frames))["type"] == "rank_hello":
                self._rank = identity
            return
        message = wire.decode(frames[0], wire.Hello, wire.Next, wire.Failed, wire.Ping)
        if isinstance(message, wire.Ping):
            self._answer(identity, wire.Pong(message.sent), received=message.sent)
        elif isinstance(message, wire.Hello):
            self._answer(identity, self._welcome)
        elif isinstance(message, wire.Next):
            assigned = {
                "type": "assigned",
                "simulation": self._issued,
                "parameters": VALUES,
                "weight": 1.0,
                "log_density": None,
            }
            self._socket.send_multipart(
                [self._rank, *json_messages.pack(self.contact.token, assigned)]
            )
            self._answer(identity, wire.Solve(self._issued, 0, VALUES))
            self._issued += 1

    def _answer(self, identity: bytes, message: wire.Message, received: int = 0) -> None:
        raw = wire.encode(message, self.contact.epoch, 0, self.contact.token, received=received)
        self._socket.send_multipart([identity, raw])


class OpenReservoir(Reservoir):
    """A reservoir that can also evict unseen samples, so that a sender never waits."""

    overwrite = False

    def _evictable(self) -> int:
        return len(self._order) if self.overwrite else super()._evictable()

    def _exchange(self, rows: Sequence[int], evictions: int) -> list[int]:
        # Only seen samples are drawn by lot.
        return (
            super()._exchange(rows, evictions)
            if evictions <= super()._evictable()
            else super(Reservoir, self)._exchange(rows, evictions)
        )

    def _evict(self) -> int:
        if super()._evictable() > 0:
            return super()._evict()
        unseen = range(self._seen, len(self._order))
        return self._evict_place(next(p for p in unseen if self._order[p] not in self._kept))


class Rank:
    """The receiving half of a server rank: data socket, ingest thread, assembler, reservoir.

    Args:
        contact: Where the control stand-in listens.
        shape: Shape of the only field.
        capacity: Of the reservoir, in samples.
        watermark: Of the reservoir.
        flow: Buffers of a client, and time steps that each holds.
        shared: Whether a client's buffers are read in place, as on one machine.
        sides: Sinks beside the reservoir.
    """

    def __init__(
        self,
        contact: Contact,
        shape: tuple[int, ...],
        capacity: int,
        watermark: int,
        flow: Flow,
        *,
        shared: bool = True,
        sides: Sequence[SideSink] = (),
    ) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        if not contact.runtime_folder:
            Authenticator(self._context, contact)
        data, endpoint = bind_socket(
            self._context,
            contact,
            "data-0",
            "127.0.0.1",
            limit=4 * flow.chunk_steps * int(np.prod(shape)) + 65_536,
            queue=2 * flow.steps + 8,
            data=True,
        )
        machine = this_machine() if shared else ""
        self.contact = replace(contact, data=(endpoint,), machines=(machine,))
        store = SlotStore({FIELD: (shape, "f4")}, capacity + 2 * flow.steps, len(PARAMETERS) + 1)
        self.reservoir = OpenReservoir(store, capacity, watermark, seed=0)
        self.state = RankState()
        fields = [wire.StudyField(FIELD, "float32", shape)]
        assembler = Assembler(fields, STEPS, SIMULATIONS, 1, 0, 1, store, flow)
        sink = FanOut(self.reservoir, sides)
        self.ingest = Ingest(
            self._context, self.contact, data, assembler, sink, self.state, 0, float
        )

    def close(self) -> None:
        """Ends the ingest thread."""
        self.ingest.close()
        self._context.term()


def stream(
    contact_file: Path,
    shape: tuple[int, ...],
    core: int | None,
    pause: Callable[[], bool] | None = None,
) -> None:
    """Sends time steps through the real client until the server ends it; the solver computes nothing.

    Args:
        contact_file: The server's contact file.
        shape: Shape of the field.
        core: Core to stay on, or None.
        pause: Called before each time step; False ends the stream.
    """
    if core is not None:
        os.sched_setaffinity(0, {core})
    os.environ["MELISSA_GEN_SERVER"] = str(contact_file)
    from melissa_gen.client import Client

    values = np.random.default_rng(0).random(shape, np.float32)
    try:
        with Client() as client:
            client.field(FIELD, shape=shape)
            for simulation in client:
                for _ in range(STEPS):
                    if pause is not None and not pause():
                        os._exit(0)
                    simulation.send(**{FIELD: values})
    except MelissaGenError:  # told to end, in the middle of a simulation
        return


def word_from(pipe: Connection, *processes: BaseProcess) -> Any:
    """Returns what comes through a pipe; a process that dies meanwhile ends the benchmark."""
    while not pipe.poll(0.2):
        if any(process.exitcode for process in processes):
            sys.exit("a process of the benchmark failed; its message stands above")
    return pipe.recv()

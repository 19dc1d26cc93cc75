"""Takes in what clients send, without training: the server of `melissa-gen generate` and `check`.

It speaks the wire of the training server, so that any client works with it unchanged, in whatever language. It has no
thread but that of the heartbeats: whoever owns it calls `turn`.
"""

import shutil
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import zmq

from melissa_gen.builders.memory import field_specs, staging_slots
from melissa_gen.errors import ProtocolError
from melissa_gen.protocol import wire
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.sockets import bind_socket
from melissa_gen.reservoir import SlotStore
from melissa_gen.server.coordination.heartbeat_thread import HeartbeatThread
from melissa_gen.server.ingest.assembler import Assembler, Fate, Sender, Target
from melissa_gen.server.listening import listening_address
from melissa_gen.study import Study

__all__ = ["Collector", "Store"]

_BURST = 256
_HEADER_ROOM = 65_536


class Store(Protocol):
    """Where samples go; a `DatasetWriter` is one. A row is a simulation."""

    def begin(self, row: int, simulation: int, parameters: npt.ArrayLike, /) -> None:
        """A client was handed the simulation."""

    def write(self, row: int, step: int, name: str, array: npt.NDArray[Any], /) -> None:
        """One field at one time step; the array is reused after the call."""

    def finish(self, row: int, /) -> None:
        """All its time steps are there."""


class Collector:
    """Hands out simulations 0 to n - 1 and stores what clients send of them.

    Args:
        study: What clients are told: fields, time steps, parameters.
        points: Parameter values of each simulation, in the study's order.
        store: Where samples go.
        contact_file: Written for the clients.

    Attributes:
        samples: Time steps stored.
        completed: Simulations complete.
        failure: The job that failed first, and why; or None.
        heartbeats: Signs of life of the clients.
        handed_out: Simulation to when a client got it, and `finished` when it was complete (monotonic seconds).
    """

    def __init__(
        self, study: Study, points: Sequence[Sequence[float]], store: Store, contact_file: Path
    ) -> None:
        self.samples = self.completed = 0
        self.failure: tuple[str, str] | None = None
        self.handed_out: dict[int, float] = {}
        self.finished: dict[int, float] = {}
        self._study, self._points, self._store = study, points, store
        self._waiting = deque(range(len(points)))
        self._jobs: dict[bytes, str] = {}
        self._asked: set[str] = set()
        self._works_on: dict[str, int] = {}
        specs = field_specs(study)
        self._fields = tuple(wire.FieldSpec(name, d, s) for name, (s, d) in specs.items())
        self._slots = SlotStore(specs, staging_slots(study), 0)
        self._assembler = Assembler(
            self._fields,
            *(study.simulation.time_steps, len(points)),
            *(1, 0, 1),  # one try, and this is the only server rank
            self._slots,
            study.credit,
        )
        self._context: zmq.Context[Any] = zmq.Context()
        self._open(contact_file)

    def _open(self, contact_file: Path) -> None:
        study = self._study
        address, ports = listening_address(study), study.server.ports
        contact = Contact.new(
            0,
            socket.gethostname(),
            ipc=not study.over_tcp,
            encrypt_data=study.server.encrypt == "all",
        )
        self._control, control = bind_socket(
            self._context, contact, "control", address, queue=0, ports=ports
        )
        beats, heartbeat = bind_socket(self._context, contact, "heartbeat", address, ports=ports)
        largest = max(self._slots.row(0, f.name).nbytes for f in self._fields)
        limit = largest + _HEADER_ROOM
        self._data, data = bind_socket(
            self._context,
            contact,
            "data",
            address,
            limit=limit,
            queue=0,
            data=True,
            ports=ports,
        )
        self._contact = replace(contact, control=control, heartbeat=heartbeat, data=(data,))
        self.heartbeats = HeartbeatThread(self._contact, beats)
        self._poller = zmq.Poller()
        self._poller.register(self._control, zmq.POLLIN)
        self._poller.register(self._data, zmq.POLLIN)
        self._contact.write(contact_file)

    def turn(self, milliseconds: int) -> None:
        """Handles what has arrived; waits at most so long for something to arrive.

        Raises:
            DataError: The store can't be written.
        """
        for readable, _ in self._poller.poll(milliseconds):
            handle = self._on_control if readable is self._control else self._on_data
            for _ in range(_BURST):
                frames = readable.recv_multipart()
                try:
                    handle(frames)
                except ProtocolError as error:
                    self._fail("", f"a message was refused: {error}")
                if not readable.poll(0):
                    break

    @property
    def waiting(self) -> int:
        """Simulations that no client was handed yet."""
        return len(self._waiting)

    def has_asked(self, job: str) -> bool:
        """Whether a job has come so far as to ask for a simulation."""
        return job in self._asked

    def works_on(self, job: str) -> int | None:
        """The simulation that a job was handed last, unless that is complete."""
        return self._works_on.get(job)

    def stuck(self, now: float) -> tuple[str, str] | None:
        """Returns a job that is silent or makes no progress, and what is to be said about it."""
        for job, pulse in list(self.heartbeats.pulses.items()):
            silence, still = now - pulse.heard, now - pulse.progressed
            if silence > self._study.server.heartbeat_timeout:
                return job, f"has been silent for {silence:.0f} s"
            if still > self._study.simulation.timeout:
                where = f"time step {pulse.beat.step} of simulation {pulse.beat.simulation}"
                return job, f"made no progress for {still:.0f} s in {where}"
        return None

    def close(self) -> None:
        """Closes the sockets and removes their folder."""
        self.heartbeats.close()
        for opened in (self._control, self._data):
            opened.close(linger=0)
        self._context.term()
        if self._contact.runtime_folder:
            shutil.rmtree(self._contact.runtime_folder, ignore_errors=True)

    def _fail(self, job: str, reason: str) -> None:
        if self.failure is None:
            self.failure = job, reason

    def _job_of(self, simulation: int) -> str:
        return next((j for j, s in self._works_on.items() if s == simulation), "")

    def _checked(self, frame: bytes) -> wire.Header:
        header = wire.decode_header(frame)
        wire.check_peer(header, self._contact.epoch, self._contact.token)
        return header

    # Control.

    def _on_control(self, frames: list[bytes]) -> None:
        identity, *rest = frames
        if len(rest) != 1:
            message = "a control message that is not of one frame"
            raise ProtocolError(message)
        try:
            self._checked(rest[0])
            request = wire.decode(rest[0], wire.Hello, wire.Next, wire.Failed)
        except ProtocolError as error:
            self._answer(identity, wire.Refused(str(error)))
            raise
        if isinstance(request, wire.Failed):
            self._fail(self._job_of(request.simulation), request.reason)
        elif isinstance(request, wire.Hello):
            self._welcome(identity, request)
        else:
            self._hand_out(identity, request.simulation)

    def _welcome(self, identity: bytes, hello: wire.Hello) -> None:
        study, simulation, server = self._study, self._study.simulation, self._study.server
        if hello.ranks != simulation.processes:
            text = (
                f"job {hello.job} has {hello.ranks} MPI ranks; the study's simulation.processes is "
                f"{simulation.processes} (was it started by another MPI's mpirun?)"
            )
            self._answer(identity, wire.Refused(text))
            self._fail(hello.job, text)
            return
        self._jobs[identity] = hello.job
        welcome = wire.Welcome(
            study.credit,
            1,
            simulation.time_steps,
            server.heartbeat,
            server.heartbeat_timeout,
            tuple(self._study.parameters),
            self._fields,
        )
        self._answer(identity, welcome)

    def _hand_out(self, identity: bytes, asked: int) -> None:
        job = self._jobs.get(identity, "")
        self._asked.add(job)
        number = asked if asked in self._waiting else None
        if asked == wire.ANY and self._waiting:
            number = self._waiting[0]
        if number is None:
            self._answer(identity, wire.Done())
            return
        self._waiting.remove(number)
        self._works_on[job] = number
        self.handed_out[number] = time.monotonic()
        self._store.begin(number, number, self._points[number])
        self._answer(identity, wire.Simulation(number, 0, tuple(self._points[number])))

    def _answer(self, identity: bytes, message: wire.Message) -> None:
        self._send(self._control, identity, message)

    # Data.

    def _on_data(self, frames: list[bytes]) -> None:
        identity, *rest = frames
        header = self._checked(rest[0] if rest else b"")
        message = wire.decode(rest[0], wire.Part, wire.Finalize)
        if isinstance(message, wire.Finalize):
            settled, senders = self._assembler.finalize(message, header.rank)
            self._pay(senders)
            if settled is not None:
                self._settle(settled.simulation, settled.steps, settled.complete)
            return
        sender = Sender(identity, message.buffer)
        place = self._assembler.place(message, header.rank)
        if isinstance(place, Fate):
            self._pay([sender])
            return
        if not _fill(place, rest[1:]):
            self._pay([sender, *self._assembler.damaged(place)])
            text = f"a part of simulation {message.simulation} whose payload has another size than its header says"
            raise ProtocolError(text)
        whole = self._assembler.received(place, sender)
        if whole is None:
            return
        if whole.slot is None:
            self._pay(whole.senders)
            where = f"simulation {whole.simulation}, time step {whole.step}"
            self._fail(self._job_of(whole.simulation), f"{where}: {whole.refusal}")
            return
        for field in self._fields:
            row = self._slots.row(whole.slot, field.name)
            self._store.write(whole.simulation, whole.step, field.name, row)
        self._slots.release(whole.slot)
        self.samples += 1
        self._pay(whole.senders)

    def _settle(self, simulation: int, steps: int, complete: int) -> None:
        wanted = self._study.simulation.time_steps
        job = self._job_of(simulation)
        if complete < wanted:
            arrived = f"sent {steps} of {wanted} time steps, of which {complete} arrived whole"
            self._fail(job, f"simulation {simulation} {arrived}")
            return
        self._works_on.pop(job, None)
        self._store.finish(simulation)
        self.completed += 1
        self.finished[simulation] = time.monotonic()

    def _pay(self, senders: list[Sender]) -> None:
        for sender in senders:
            self._send(self._data, sender.identity, wire.Credit((sender.buffer,)))

    def _send(self, opened: zmq.Socket[bytes], identity: bytes, message: wire.Message) -> None:
        raw = wire.encode(message, self._contact.epoch, 0, self._contact.token)
        try:
            opened.send_multipart([identity, raw], zmq.NOBLOCK)
        except zmq.ZMQError:  # the peer is gone; its end will be noticed
            return


def _fill(target: Target, payload: list[bytes]) -> bool:
    """Copies a part's payload where it belongs; says whether it had the right size."""
    if [len(frame) for frame in payload] != [array.nbytes for array in target.arrays]:
        return False
    for array, frame in zip(target.arrays, payload, strict=True):
        array[...] = np.frombuffer(frame, array.dtype).reshape(array.shape)
    return True

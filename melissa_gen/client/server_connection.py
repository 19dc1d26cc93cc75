"""Streams the samples of a client to the training server.

Each rank sends its parts directly to the server rank that owns the sample. A credit is a buffer: `send` copies the
values of the solver into a free buffer. A server on the same machine reads the buffer in place; otherwise ZeroMQ sends
it without another copy. The server returns the buffer when the sample is in its reservoir. The memory is therefore
bounded, and the solver can reuse its arrays at once.
"""

import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zmq

from melissa_gen.client.communicator import Communicator, broadcast
from melissa_gen.client.destination import IssuedSimulation, Placement
from melissa_gen.client.heartbeat import Heartbeat
from melissa_gen.errors import ClientError, ProtocolError, ServerLost
from melissa_gen.protocol import wire
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.failures import Failure
from melissa_gen.protocol.shared_memory import SharedBuffers
from melissa_gen.protocol.sockets import connect_socket, unreachable

__all__ = ["ServerConnection"]

_HANDSHAKE_MILLISECONDS = 60_000


class ServerConnection:
    """Connection of one client rank to all server ranks.

    Args:
        communicator: The ranks of this client.
        contact_file: Path of the server's contact file.

    Raises:
        ClientError: The server can't be reached, or refuses this client.
    """

    def __init__(self, communicator: Communicator, contact_file: Path) -> None:
        self._communicator = communicator
        try:
            self._contact = Contact.read(contact_file)
        except ProtocolError as error:
            raise ClientError(str(error)) from None
        self._only = _only_simulation()
        self._context: zmq.Context[Any] = zmq.Context()
        self._job = os.environ.get("MELISSA_GEN_JOB", f"{socket.gethostname()}-{os.getpid()}")
        self._asked = False
        # Whether nothing is left to solve. The server then still reads what was sent.
        self._done = False
        self._control: zmq.Socket[bytes] | None = None
        self._heartbeat: Heartbeat | None = None
        self._welcome = self._introduce()
        self.time_steps: int | None = self._welcome.time_steps
        self._channels: list[_Channel | None] = [None] * self._welcome.server_ranks
        self._placements: list[tuple[str, Placement]] = []
        self._blocks: tuple[wire.Block, ...] = ()
        if communicator.rank == 0:
            self._heartbeat = Heartbeat(
                self._context,
                self._contact,
                self._job,
                self._welcome.heartbeat,
                self._welcome.heartbeat_timeout,
            )

    def declare(self, name: str, placement: Placement) -> Placement:
        """Checks a declaration against the study. Values are sent in the type that the study declares."""
        specs = {spec.name: spec for spec in self._welcome.fields}
        if name not in specs:
            raise ClientError(Failure.of("unknown_field", field=name, legal=list(specs)))
        spec = specs[name]
        if placement.shape != spec.shape:
            shapes = {"found": placement.shape, "expected": spec.shape}
            raise ClientError(Failure.of("wrong_shape", field=name, **shapes))
        placed = placement._replace(dtype=np.dtype(spec.dtype))
        if (name, placed) in self._placements:
            return placed
        if any(self._channels):
            raise ClientError(Failure.of("late_declaration", field=name))
        self._placements = [p for p in self._placements if p[0] != name] + [(name, placed)]
        order = {spec.name: index for index, spec in enumerate(self._welcome.fields)}
        self._blocks = tuple(
            wire.Block(order[name], p.start, p.extent) for name, p in self._placements
        )
        return placed

    def next(self) -> IssuedSimulation | None:
        """Asks for the next simulation. Every rank gets the answer of rank 0."""
        missing = {f.name for f in self._welcome.fields} - {name for name, _ in self._placements}
        if missing:
            raise ClientError(Failure.of("undeclared_fields", fields=sorted(missing)))
        names = self._welcome.parameters
        # Whether there is a simulation, its number (or whether nothing is left), its attempt, its parameters.
        answer = np.zeros(3 + len(names))
        if self._communicator.rank == 0:
            self._done = self._only >= 0 and self._asked
            message = None if self._done else self._ask(wire.Next(self._only))
            self._asked = True
            answer[1] = self._done
            if isinstance(message, wire.Solve):
                answer[:3] = 1, message.simulation, message.attempt
                answer[3:] = message.parameters
        self._communicator.share(answer)
        if not answer[0]:
            self._done = bool(answer[1])
            return None
        found = IssuedSimulation(
            int(answer[1]), int(answer[2]), dict(zip(names, answer[3:].tolist(), strict=True))
        )
        self._note(wire.SOLVING, found.simulation, 0)
        return found

    def send(
        self, issued: IssuedSimulation, step: int, blocks: Mapping[str, npt.NDArray[Any]]
    ) -> None:
        """Copies the blocks and sends them to the owner of the sample. Waits for credit."""
        number, attempt = issued.simulation, issued.attempt
        channel = self._channel(wire.owner(number, step, len(self._channels)))
        buffer = self._free_buffer(channel, number, step)
        for (name, _), array in zip(self._placements, channel.buffers[buffer], strict=True):
            np.copyto(
                array,
                blocks[name],
                casting="same_kind" if blocks[name].dtype.kind == "f" else "unsafe",
            )
        part = wire.Part(number, attempt, step, self._communicator.size, buffer, self._blocks)
        if channel.shared is not None:
            channel.socket.send(self._pack(part))
            self._note(wire.SOLVING, number, step + 1)
            return
        channel.socket.send(self._pack(part), zmq.SNDMORE)
        *first, last = channel.buffers[buffer]
        for array in first:
            channel.socket.send(array.data, zmq.SNDMORE, copy=False)
        channel.socket.send(last.data, copy=False)
        self._note(wire.SOLVING, number, step + 1)

    def finalize(self, issued: IssuedSimulation, steps: int) -> None:
        """Tells every server rank that this rank has sent all its parts."""
        end = wire.Finalize(issued.simulation, issued.attempt, steps, self._communicator.size)
        for rank in range(len(self._channels)):
            self._channel(rank).socket.send(self._pack(end))

    def fail(self, issued: IssuedSimulation | None, step: int, failure: Failure) -> None:
        """Tells the server that the simulation is given up, or that a declaration is wrong."""
        if self._control is None:
            self._control = connect_socket(self._context, self._contact, self._contact.control)
        number, attempt = (-1, 0) if issued is None else (issued.simulation, issued.attempt)
        failed = wire.Failed(self._job, number, attempt, step, failure.code, failure.values_json)
        self._control.send(self._pack(failed))

    def close(self) -> None:
        """Ends the heartbeat, sends queued messages, and closes all sockets.

        A busy server needs time to read the messages. A server that stops or is lost does not read them.
        """
        seconds = self._welcome.heartbeat_timeout / 2 if self._done else 1.0
        if self._heartbeat is not None:
            self._heartbeat.close()
            self._heartbeat = None
        for channel in self._channels:
            if channel is not None:
                channel.close(seconds)
        if self._control is not None:
            self._control.close()
        self._context.term()

    def _introduce(self) -> wire.Welcome:
        """Performs the handshake on rank 0 and shares the answer with the other ranks.

        All ports of the server are tried first: a simulation that is issued to a client without a connection is lost.
        """
        raw = b""
        ports = (self._contact.control, self._contact.heartbeat, *self._contact.data)
        if self._communicator.rank == 0 and (
            problem := next(filter(None, map(unreachable, ports)), "")
        ):
            raw = self._pack(wire.Refused(problem))
        elif self._communicator.rank == 0:
            self._control = connect_socket(self._context, self._contact, self._contact.control)
            hello = wire.Hello(
                self._job, socket.gethostname(), os.getpid(), self._communicator.size
            )
            self._control.send(self._pack(hello))
            if self._control.poll(_HANDSHAKE_MILLISECONDS):
                raw = self._control.recv()
            else:
                where = f"{self._contact.host} ({self._contact.control})"
                silence = f"the training server on {where} did not answer within 60 s"
                raw = self._pack(wire.Refused(silence))
        try:
            answer = wire.decode(broadcast(self._communicator, raw), wire.Welcome, wire.Refused)
        except ProtocolError as error:
            answer = wire.Refused(str(error))
        if isinstance(answer, wire.Welcome):
            return answer
        if self._control is not None:
            self._control.close(linger=0)
        self._context.term()
        raise ClientError(answer.reason)

    def _ask(self, question: wire.Next) -> wire.Solve | None:
        assert self._control is not None and self._heartbeat is not None
        began = time.monotonic()
        self._note(wire.WAITING_FOR_PARAMETERS)
        self._control.send(self._pack(question))
        while not self._control.poll(100):
            if self._heartbeat.lost:
                raise ServerLost(self._heartbeat.ended)
            if self._heartbeat.ended:
                return None
        raw = self._control.recv()
        answer = wire.decode(raw, wire.Solve, wire.Done, wire.Stop, wire.Refused)
        if isinstance(answer, wire.Refused):
            raise ClientError(answer.reason)
        self._heartbeat.progress.next_seconds += time.monotonic() - began
        self._done = isinstance(answer, wire.Done)
        return answer if isinstance(answer, wire.Solve) else None

    def _free_buffer(self, channel: "_Channel", simulation: int, step: int) -> int:
        if not channel.free:
            channel.collect()
        began = time.monotonic()
        while not channel.free:
            self._note(wire.WAITING_FOR_CREDIT, simulation, step)
            channel.socket.poll(200)
            channel.collect()
            if self._heartbeat is not None:
                self._heartbeat.progress.credit_seconds += time.monotonic() - began
                began = time.monotonic()
                if self._heartbeat.ended:
                    raise ServerLost(self._heartbeat.ended)
        if self._heartbeat is not None and self._heartbeat.ended:
            raise ServerLost(self._heartbeat.ended)
        return channel.free.pop()

    def _channel(self, rank: int) -> "_Channel":
        found = self._channels[rank]
        if found is None:
            if problem := unreachable(self._contact.data[rank]):
                msg = f"rank {self._communicator.rank} of the client on {problem}"
                raise ClientError(msg)
            peer = connect_socket(
                self._context, self._contact, self._contact.data[rank], data=True, queue=0
            )
            found = _Channel(peer, self._welcome.credit, [p for _, p in self._placements])
            if self._contact.shares_memory(rank) and (offer := found.offer()) is not None:
                peer.send(self._pack(offer))
            self._channels[rank] = found
        return found

    def _note(self, state: int, simulation: int = 0, step: int = 0) -> None:
        if self._heartbeat is not None:
            progress = self._heartbeat.progress
            progress.simulation, progress.step, progress.state = simulation, step, state

    def _pack(self, message: wire.Message) -> bytes:
        return wire.encode(
            message, self._contact.epoch, self._communicator.rank, self._contact.token
        )


def _only_simulation() -> int:
    """Returns the number of the simulation of a process that solves only one, else `wire.ANY`.

    Raises:
        ClientError: The environment variable is not a number.
    """
    text = os.environ.get("MELISSA_GEN_SIMULATION")
    try:
        return wire.ANY if text is None else int(text)
    except ValueError:
        msg = f"MELISSA_GEN_SIMULATION is '{text}': not a number"
        raise ClientError(msg) from None


class _Channel:
    """Connection to one server rank: a socket, and the buffers that are this rank's credit there."""

    def __init__(
        self, peer: zmq.Socket[bytes], credit: int, placements: Sequence[Placement]
    ) -> None:
        self.socket = peer
        self.shared: SharedBuffers | None = None
        self.buffers: list[list[npt.NDArray[Any]]] = []
        self.free: list[int] = []
        self._credit = credit
        self._blocks = [(p.extent, p.dtype) for p in placements]
        self._use_private_buffers()

    def offer(self) -> wire.Share | None:
        """Moves the buffers into memory that the server rank can read; None if the system has no such memory."""
        try:
            self.shared = shared = SharedBuffers(self._credit, self._blocks)
        except (OSError, AttributeError):
            # The memory is full, or the system is not Linux.
            return None
        self.buffers, self.free = shared.arrays, []
        return wire.Share(os.getpid(), shared.descriptor, shared.nonce, self._credit)

    def collect(self) -> None:
        """Receives the buffers that the server has returned."""
        while self.socket.poll(0):
            message = wire.decode(self.socket.recv(), wire.Credit, wire.Refused)
            if isinstance(message, wire.Credit):
                self.free += message.buffers
            else:
                # The server rank can't read the memory of this process.
                self._use_private_buffers()

    def close(self, seconds: float) -> None:
        """Closes the socket; queued messages are sent if that takes at most `seconds`."""
        self.socket.close(linger=int(1000 * seconds))
        if self.shared is not None:
            self.shared.close()

    def _use_private_buffers(self) -> None:
        if self.shared is not None:
            self.shared.close()
        self.shared = None
        self.buffers = [
            [np.empty(extent, dtype) for extent, dtype in self._blocks] for _ in range(self._credit)
        ]
        self.free = list(range(self._credit))

"""Streams a client's samples to the training server.

Each rank sends its parts straight to the server rank that owns the sample. A credit is a buffer: `send` copies the
solver's values into a free one; on the server's machine the server reads it there, elsewhere ZeroMQ sends it without
another copy. The server gives the buffer back when the sample is in its reservoir. So memory is bounded, and a solver
may reuse its arrays at once.
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
from melissa_gen.errors import ClientError, ProtocolError, ServerLost, nearest
from melissa_gen.protocol import wire
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.shared_memory import SharedBuffers
from melissa_gen.protocol.sockets import connect_socket, unreachable

__all__ = ["ServerConnection"]

_HANDSHAKE_MILLISECONDS = 60_000


class ServerConnection:
    """The client's side of the wire.

    Args:
        communicator: The ranks of this client.
        contact_file: The server's contact file.

    Raises:
        ClientError: The server can't be reached, or refuses this client.
    """

    def __init__(self, communicator: Communicator, contact_file: Path) -> None:
        self._communicator = communicator
        try:
            self._contact = Contact.read(contact_file)
        except ProtocolError as error:
            raise ClientError(str(error)) from None
        self._context: zmq.Context[Any] = zmq.Context()
        self._job = os.environ.get("MELISSA_GEN_JOB", f"{socket.gethostname()}-{os.getpid()}")
        self._only = int(os.environ.get("MELISSA_GEN_SIMULATION", wire.ANY))
        self._asked = False
        self._done = False
        """Whether there is nothing more to solve, and the server still reads."""
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
        """Checks the declaration against the study; the study's type is what is sent."""
        specs = {spec.name: spec for spec in self._welcome.fields}
        if name not in specs:
            msg = f"field '{name}'{nearest(name, specs)} is not in the study; it declares {', '.join(specs)}"
            raise ClientError(msg)
        spec = specs[name]
        if placement.shape != spec.shape:
            msg = f"field '{name}' has the global shape {placement.shape}; the study says {spec.shape}"
            raise ClientError(msg)
        placed = placement._replace(dtype=np.dtype(spec.dtype))
        if (name, placed) in self._placements:
            return placed
        if any(self._channels):
            msg = f"field '{name}' is declared anew after the first time step; declare once, before the loop"
            raise ClientError(msg)
        self._placements = [p for p in self._placements if p[0] != name] + [(name, placed)]
        order = {spec.name: index for index, spec in enumerate(self._welcome.fields)}
        self._blocks = tuple(
            wire.Block(order[name], p.start, p.extent) for name, p in self._placements
        )
        return placed

    def next(self) -> IssuedSimulation | None:
        """Asks for the next simulation; every rank gets rank 0's answer."""
        missing = {f.name for f in self._welcome.fields} - {name for name, _ in self._placements}
        if missing:
            msg = f"the fields {', '.join(sorted(missing))} of the study are not declared; call client.field(...) first"
            raise ClientError(msg)
        names = self._welcome.parameters
        # Found, simulation (or whether all is done), attempt, parameters.
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
        """Copies the blocks and sends them to the sample's owner; waits for credit."""
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

    def fail(self, issued: IssuedSimulation, step: int, reason: str) -> None:
        """Tells the server that the simulation is given up."""
        if self._control is None:
            self._control = connect_socket(self._context, self._contact, self._contact.control)
        failed = wire.Failed(issued.simulation, issued.attempt, step, reason)
        self._control.send(self._pack(failed))

    def close(self) -> None:
        """Ends the heartbeat, lets queued messages go out, closes.

        A server that is busy takes its time to read them; one that is lost, or stops, does not want them.
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
        """Rank 0 shakes hands; the others get the answer from it.

        That all of the server's ports can be reached is seen before a simulation is asked for, which would be lost.
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


class _Channel:
    """The way to one server rank: a socket and the buffers that are this rank's credit there."""

    def __init__(
        self, peer: zmq.Socket[bytes], credit: int, placements: Sequence[Placement]
    ) -> None:
        self.socket = peer
        self.shared: SharedBuffers | None = None
        self.buffers: list[list[npt.NDArray[Any]]] = []
        self.free: list[int] = []
        self._credit = credit
        self._blocks = [(p.extent, p.dtype) for p in placements]
        self._keep_private()

    def offer(self) -> wire.Share | None:
        """Puts the buffers into memory that the server rank can read; None where there is no such memory."""
        try:
            self.shared = shared = SharedBuffers(self._credit, self._blocks)
        except (OSError, AttributeError):  # full, or not Linux
            return None
        self.buffers, self.free = shared.arrays, []
        return wire.Share(os.getpid(), shared.descriptor, shared.nonce, self._credit)

    def collect(self) -> None:
        """Takes back the buffers that the server has handed back."""
        while self.socket.poll(0):
            message = wire.decode(self.socket.recv(), wire.Credit, wire.Refused)
            if isinstance(message, wire.Credit):
                self.free += message.buffers
            else:  # the server rank can't read our memory
                self._keep_private()

    def close(self, seconds: float) -> None:
        """Closes; what is queued is still sent, if it can be in so many seconds."""
        self.socket.close(linger=int(1000 * seconds))
        if self.shared is not None:
            self.shared.close()

    def _keep_private(self) -> None:
        if self.shared is not None:
            self.shared.close()
        self.shared = None
        self.buffers = [
            [np.empty(extent, dtype) for extent, dtype in self._blocks] for _ in range(self._credit)
        ]
        self.free = list(range(self._credit))

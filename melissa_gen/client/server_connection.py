"""Streams the samples of a client to the training server.

Each rank sends its parts directly to the server rank that owns the simulation, to which it connects when it has the
first one of that rank. A credit is a buffer of several time steps: `send` copies the values of the solver into the
current one. A server on the same machine reads the buffer in place; otherwise ZeroMQ sends it without another copy. The
server returns the buffer when the samples are in its reservoir. The memory is therefore bounded, and the solver can
reuse its arrays at once.

What was copied is sent when the buffer is full, with the last time step, before a failure is reported, and when the
next time step would come too late (`server.chunk_latency`), assuming that it takes as long as this one. No thread
watches the time: if the solver then takes longer than expected, what was copied is sent at its next call.
"""

import logging
import math
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from melissa_gen.client.channel import Channel
from melissa_gen.client.communicator import Communicator, broadcast
from melissa_gen.client.conversation import Conversation
from melissa_gen.client.destination import IssuedSimulation, Placement
from melissa_gen.client.heartbeat import Heartbeat, SolverProgress
from melissa_gen.client.user_messages import show_user
from melissa_gen.errors import ClientError, ProtocolError, ServerLost
from melissa_gen.protocol import wire
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.descriptors import (
    check_descriptors,
    client_descriptors,
    raise_descriptor_limit,
)
from melissa_gen.protocol.failures import Failure
from melissa_gen.protocol.session import PING_SECONDS
from melissa_gen.protocol.sockets import client_context, connect_socket, unreachable
from melissa_gen.protocol.wire_types import MOST_BYTES

__all__ = ["ServerConnection"]

_log = logging.getLogger(__name__)

_HANDSHAKE_SECONDS = 60.0


class ServerConnection:
    """Connection of one client rank to the server ranks that own its simulations.

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
        server_ranks = len(self._contact.data)
        needed = client_descriptors(server_ranks)
        who = f"a client of {server_ranks} server ranks"
        if problem := check_descriptors(needed, raise_descriptor_limit(needed), who):
            raise ClientError(problem)
        self._context = client_context(server_ranks)
        self._job = os.environ.get("MELISSA_GEN_JOB", f"{socket.gethostname()}-{os.getpid()}")
        self._asked = False
        # Whether nothing is left to solve. The server then still reads what was sent.
        self._done = False
        self._unshared = ""
        self._repeated = time.monotonic()
        self._progress = SolverProgress()
        # When the first time step that was not sent was copied.
        self._collecting = 0.0
        self._control: Conversation | None = None
        self._heartbeat: Heartbeat | None = None
        self._welcome = self._introduce()
        self.time_steps: int | None = self._welcome.time_steps
        self._channels: list[Channel | None] = [None] * self._welcome.server_ranks
        self.inputs = self.possible_inputs = tuple(spec.name for spec in self._welcome.inputs)
        self._placements: list[tuple[str, Placement]] = []
        self._inputs: dict[str, Placement] = {}
        self._blocks: tuple[wire.Block, ...] = ()
        if communicator.rank == 0:
            self._heartbeat = Heartbeat(
                self._context,
                self._contact,
                self._job,
                self._progress,
                self._welcome.heartbeat,
                self._welcome.heartbeat_timeout,
            )

    def declare(self, name: str, placement: Placement) -> Placement:
        """Checks a declaration against the study. Values are sent in the type that the study declares."""
        specs = {spec.name: spec for spec in (*self._welcome.fields, *self._welcome.inputs)}
        if name not in specs:
            raise ClientError(Failure.of("unknown_field", field=name, legal=list(specs)))
        spec = specs[name]
        if placement.shape != spec.shape:
            shapes = {"found": placement.shape, "expected": spec.shape}
            raise ClientError(Failure.of("wrong_shape", field=name, **shapes))
        placed = placement._replace(dtype=np.dtype(spec.dtype))
        if (name, placed) in (*self._placements, *self._inputs.items()):
            return placed
        if any(self._channels):
            raise ClientError(Failure.of("late_declaration", field=name))
        if name in self.inputs:
            size = math.prod(placed.extent) * placed.dtype.itemsize
            if size > MOST_BYTES:
                raise ClientError(Failure.of("large_input", field=name, bytes=size))
            self._inputs[name] = placed
            return placed
        self._placements = [p for p in self._placements if p[0] != name] + [(name, placed)]
        order = {spec.name: index for index, spec in enumerate(self._welcome.fields)}
        self._blocks = tuple(
            wire.Block(order[name], p.start, p.extent) for name, p in self._placements
        )
        return placed

    def next(self) -> IssuedSimulation | None:
        """Asks for the next simulation. Every rank gets the answer of rank 0."""
        specs = (*self._welcome.fields, *self._welcome.inputs)
        missing = {spec.name for spec in specs} - {name for name, _ in self._placements}
        missing -= self._inputs.keys()
        if missing:
            raise ClientError(Failure.of("undeclared_fields", fields=sorted(missing)))
        parameters = self._welcome.parameters
        # Whether there is a simulation, its number (or whether nothing is left), its attempt, its parameters.
        answer = np.zeros(3 + len(parameters))
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
        values = wire.named_values(parameters, answer[3:].tolist())
        found = IssuedSimulation(int(answer[1]), int(answer[2]), values)
        self._note(wire.SOLVING, found.simulation, 0)
        self._progress.returned = time.monotonic()
        return found

    def send(
        self,
        issued: IssuedSimulation,
        step: int,
        blocks: Mapping[str, npt.NDArray[Any]],
        called: float,
    ) -> None:
        """Copies the blocks, and sends what was copied if it should not wait longer. Waits for credit."""
        progress, number = self._progress, issued.simulation
        solving, waited = progress.enter(called), progress.credit_seconds
        channel = self._channel(wire.owner(number, len(self._channels)))
        self._repeat_lost_messages(called)
        if not channel.has_credit:
            self._wait_for_credit(channel, number, step)
        self._check_server()
        if not channel.waiting:
            self._collecting = called
        channel.add(blocks)
        copied = time.monotonic()
        progress.copying_seconds += copied - called - (progress.credit_seconds - waited)
        late = called - self._collecting + solving > self._welcome.chunk_latency
        if late or channel.full or step + 1 == self._welcome.time_steps:
            self._flush(issued, step + 1)
            copied = self._count_sending(copied)
        self._note(wire.SOLVING, number, step + 1)
        progress.returned = copied

    def send_inputs(
        self, issued: IssuedSimulation, blocks: Mapping[str, npt.NDArray[Any]], called: float
    ) -> None:
        """Sends the blocks of inputs to the owner of the simulation, which gets them before its time steps."""
        number, attempt, ranks = issued.simulation, issued.attempt, self._communicator.size
        self._progress.enter(called)
        self._repeat_lost_messages(time.monotonic())
        self._check_server()
        line = self._channel(wire.owner(number, len(self._channels))).line
        for name, values in blocks.items():
            placed = self._inputs[name]
            block = wire.Block(self.inputs.index(name), placed.start, placed.extent)
            raw = np.asarray(values, placed.dtype, order="C").tobytes()
            line.send(wire.Input(number, attempt, ranks, block, raw))
        self._progress.returned = self._count_sending(called)

    def _count_sending(self, since: float) -> float:
        """Counts the time since an earlier one (monotonic seconds) as time of sending; returns the time."""
        now = time.monotonic()
        self._progress.sending_seconds += now - since
        return now

    def _flush(self, issued: IssuedSimulation, steps: int) -> None:
        """Sends the time steps of a simulation that were copied and not sent; `steps` were copied in all."""
        channel = self._channels[wire.owner(issued.simulation, len(self._channels))]
        if channel is not None:
            ranks = self._communicator.size
            channel.flush(issued.simulation, issued.attempt, steps, ranks, self._blocks)

    def finalize(self, issued: IssuedSimulation, steps: int) -> None:
        """Tells the owner of the simulation that this rank has sent all its parts."""
        called = time.monotonic()
        self._progress.enter(called)
        self._flush(issued, steps)
        end = wire.Finalize(issued.simulation, issued.attempt, steps, self._communicator.size)
        self._channel(wire.owner(issued.simulation, len(self._channels))).line.send(end)
        self._count_sending(called)

    def fail(self, issued: IssuedSimulation | None, step: int, failure: Failure) -> None:
        """Tells the server that the simulation is given up, or that a declaration is wrong."""
        if self._control is None:
            self._control = self._converse(self._contact.control)
        if issued is not None:
            self._progress.enter(time.monotonic())
            self._flush(issued, step)
        number, attempt = (-1, 0) if issued is None else (issued.simulation, issued.attempt)
        failed = wire.Failed(self._job, number, attempt, step, failure.code, failure.values_json)
        self._control.send(failed)

    def close(self) -> None:
        """Ends the heartbeat, waits until the server has everything, and closes all sockets.

        A busy server needs time to read the messages. A server that stops or is lost does not read them.
        """
        until = time.monotonic() + (self._welcome.heartbeat_timeout / 2 if self._done else 1.0)
        if self._heartbeat is not None:
            self._heartbeat.close()
            self._heartbeat = None
        for channel in self._channels:
            if channel is not None:
                channel.close(until)
        if self._control is not None:
            self._control.flush(until, wire.Solve, wire.Done, wire.Stop, wire.Refused, wire.Welcome)
            self._control.socket.close(linger=0)
        self._context.term()

    def _introduce(self) -> wire.Welcome:
        """Performs the handshake on rank 0 and shares the answer with the other ranks.

        All ports of the server are tried first: a simulation that is issued to a client without a connection is lost.
        """
        answer: wire.Message = wire.Done()
        ports = (self._contact.control, self._contact.heartbeat, *self._contact.data)
        if self._communicator.rank == 0 and (
            problem := next(filter(None, map(unreachable, ports)), "")
        ):
            answer = wire.Refused(problem)
        elif self._communicator.rank == 0:
            self._control = self._converse(self._contact.control)
            try:
                answer = self._say_hello(self._control)
            except ProtocolError as error:
                answer = wire.Refused(str(error))
        raw = wire.encode(answer, self._contact.epoch, 0, self._contact.token)
        answer = wire.decode(broadcast(self._communicator, raw), wire.Welcome, wire.Refused)
        if isinstance(answer, wire.Welcome):
            return answer
        if self._control is not None:
            self._control.socket.close(linger=0)
        self._context.term()
        raise ClientError(answer.reason)

    def _say_hello(self, control: Conversation) -> wire.Welcome | wire.Refused:
        """Sends the first message of the client and waits for the answer."""
        hello = wire.Hello(self._job, socket.gethostname(), os.getpid(), self._communicator.size)
        control.send(hello)
        until = time.monotonic() + _HANDSHAKE_SECONDS
        while time.monotonic() < until:
            control.wait(100)
            answer: wire.Welcome | wire.Refused | None = control.receive(wire.Welcome, wire.Refused)
            if answer is not None:
                return answer
        where = f"{self._contact.host} ({self._contact.control})"
        return wire.Refused(f"the training server on {where} did not answer within 60 s")

    def _ask(self, question: wire.Next) -> wire.Solve | None:
        assert self._control is not None and self._heartbeat is not None
        began = time.monotonic()
        self._progress.began = min(self._progress.began, began)
        self._note(wire.WAITING_FOR_PARAMETERS)
        self._control.send(question)
        answers = (wire.Solve, wire.Done, wire.Stop, wire.Refused)
        while (answer := self._control.receive(*answers)) is None:
            if self._heartbeat.lost:
                raise ServerLost(self._heartbeat.ended)
            if self._heartbeat.ended:
                return None
            self._control.wait(100)
            began = self._count_asking(began)
            self._repeat_lost_messages(began)
        if isinstance(answer, wire.Refused):
            raise ClientError(answer.reason)
        self._count_asking(began)
        self._done = isinstance(answer, wire.Done)
        return answer if isinstance(answer, wire.Solve) else None

    def _count_asking(self, since: float) -> float:
        """Counts the time since an earlier one as time of waiting for parameters; returns the time."""
        now = time.monotonic()
        self._progress.next_seconds += now - since
        return now

    def _wait_for_credit(self, channel: Channel, simulation: int, step: int) -> None:
        """Returns when a buffer of a channel is free.

        Raises:
            ServerLost: The server stopped.
        """
        channel.collect()
        opened = began = time.monotonic()
        warned = False
        while not channel.has_credit:
            self._note(wire.WAITING_FOR_CREDIT, simulation, step)
            channel.line.wait(200)
            channel.collect()
            now = time.monotonic()
            self._repeat_lost_messages(now)
            if not (warned or channel.line.answered) and now - opened > _HANDSHAKE_SECONDS:
                warned = True
                rank = wire.owner(simulation, len(self._channels))
                self._warn_of_silence(rank, now - opened)
            self._progress.credit_seconds += now - began
            began = now
            self._check_server()
        # The first buffers become free when the server has answered the offer of memory.
        self._show_unshared(channel)

    def _warn_of_silence(self, server_rank: int, seconds: float) -> None:
        text = (
            f"{self._who()} has had no answer from server rank {server_rank} "
            f"({self._contact.data[server_rank]}) for {seconds:.0f} s; the server may be busy"
        )
        show_user(_log, logging.WARNING, text)

    def _check_accepted(self, channel: Channel, server_rank: int) -> None:
        """Warns if a server rank does not accept the connection; fails after the heartbeat's timeout."""
        seconds, timeout = channel.seconds_unaccepted(), self._welcome.heartbeat_timeout
        where = f"server rank {server_rank} ({self._contact.data[server_rank]})"
        if channel.refused:
            msg = f"{self._who()}: {where} refuses the keys of the contact file"
            raise ClientError(msg)
        text = (
            f"{self._who()}: {where} has not accepted the connection for {seconds:.0f} s; it may have no file "
            "descriptor left (ulimit -n)"
        )
        if seconds > timeout:
            raise ClientError(text)
        if seconds > timeout / 2 and not channel.warned:
            channel.warned = True
            show_user(_log, logging.WARNING, text)

    def _who(self) -> str:
        return f"rank {self._communicator.rank} of the client on {socket.gethostname()}"

    def _check_server(self) -> None:
        if self._heartbeat is not None and self._heartbeat.ended:
            raise ServerLost(self._heartbeat.ended)

    def _repeat_lost_messages(self, now: float) -> None:
        """Receives the answers of all server ranks, at most once a second, and repeats what was lost."""
        if now - self._repeated < PING_SECONDS:
            return
        self._repeated = now
        for rank, channel in enumerate(self._channels):
            if channel is not None:
                channel.line.ping_if_due()
                channel.collect()
                self._check_accepted(channel, rank)

    def _channel(self, rank: int) -> Channel:
        found = self._channels[rank]
        if found is None:
            endpoint = self._contact.data[rank]
            if problem := unreachable(endpoint):
                msg = f"rank {self._communicator.rank} of the client on {problem}"
                raise ClientError(msg)
            found = self._channels[rank] = Channel(
                self._converse(endpoint, data=True),
                (self._welcome.credit, self._welcome.chunk_steps),
                self._placements,
                share=self._contact.shares_memory(rank),
            )
            self._show_unshared(found)
        return found

    def _show_unshared(self, channel: Channel) -> None:
        """Says once why fields are sent through a socket although the server is on this machine."""
        if channel.unshared and not self._unshared:
            text = f"there is no shared memory for the fields ({channel.unshared}): they are sent through a socket"
            show_user(_log, logging.WARNING, text)
        self._unshared = self._unshared or channel.unshared

    def _converse(self, endpoint: str, *, data: bool = False) -> Conversation:
        queue = 0 if data else 1000
        peer = connect_socket(self._context, self._contact, endpoint, data=data, queue=queue)
        return Conversation(peer, self._contact, self._communicator.rank)

    def _note(self, state: int, simulation: int = 0, step: int = 0) -> None:
        progress = self._progress
        progress.simulation, progress.step, progress.state = simulation, step, state


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

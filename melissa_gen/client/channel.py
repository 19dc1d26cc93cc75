"""Connection of a client rank to one server rank: a socket, and the buffers that are this rank's credit there."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from melissa_gen.client.conversation import Conversation
from melissa_gen.client.destination import Placement
from melissa_gen.protocol import wire
from melissa_gen.protocol.handshake import Handshake
from melissa_gen.protocol.shared_memory import SharedBuffers

__all__ = ["Channel"]


class Channel:
    """The buffers of one client rank for one server rank.

    Each buffer holds several time steps. `add` copies one time step to the current buffer, and `flush` sends those that
    have not been sent as one part. A buffer that is full is free again when the server has returned it for
    each of its parts. The memory in flight is therefore the same however the time steps are cut into parts.

    No buffer is free before the server has answered, so that a server that does not read is noticed at the first step.

    Args:
        line: The messages to the server rank.
        flow: Number of buffers, and time steps that each holds.
        placements: The name and place of each field.
        share: Whether the server rank is on this machine and may read the buffers in place.

    Attributes:
        warned: Whether the user knows that the server has not accepted the connection.
        unshared: Why the buffers are not in shared memory although the server is on this machine; else empty.
    """

    def __init__(
        self,
        line: Conversation,
        flow: tuple[int, int],
        placements: Sequence[tuple[str, Placement]],
        *,
        share: bool,
    ) -> None:
        self.line = line
        self.warned = False
        self._handshake, self._opened = Handshake(line.socket), time.monotonic()
        self._names = [name for name, _ in placements]
        self._credit, self._steps = flow
        self._blocks = [((self._steps, *p.extent), p.dtype) for _, p in placements]
        self.unshared = ""
        self._shared: SharedBuffers | None = None
        self._buffers: list[list[npt.NDArray[Any]]] = []
        self._free: list[int] = []
        # Parts of each buffer that the server has not returned.
        self._parts: list[int] = []
        # The current buffer, or None; the place of its next time step, and of the first one that was not sent.
        self._current: int | None = None
        self._place = self._unsent = 0
        self._use_private_buffers()
        if share:
            self._offer()
        line.ping()

    @property
    def has_credit(self) -> bool:
        """Whether there is a place for a time step."""
        return (self._current is not None or bool(self._free)) and self.line.answered

    @property
    def waiting(self) -> int:
        """Number of time steps that were copied and not sent."""
        return self._place - self._unsent

    @property
    def full(self) -> bool:
        """Whether the current buffer has no place left."""
        return self._place == self._steps

    @property
    def refused(self) -> bool:
        """Whether the server has refused the keys of this client."""
        return self._handshake.refused

    def seconds_unaccepted(self) -> float:
        """Returns how long the server has not accepted the connection; 0.0 if it has."""
        self._handshake.update()
        return 0.0 if self._handshake.done else time.monotonic() - self._opened

    def add(self, blocks: Mapping[str, npt.NDArray[Any]]) -> None:
        """Copies the blocks of a time step, for which there must be credit."""
        if self._current is None:
            self._current = self._free.pop()
            self._place = self._unsent = 0
        for name, array in zip(self._names, self._buffers[self._current], strict=True):
            array[self._place] = blocks[name]
        self._place += 1

    def flush(
        self, simulation: int, attempt: int, steps: int, ranks: int, blocks: tuple[wire.Block, ...]
    ) -> None:
        """Sends the time steps that were copied and not sent, as one part; nothing if there are none.

        Args:
            simulation: Number of the simulation.
            attempt: Number of the attempt.
            steps: Time steps of the simulation that were copied so far.
            ranks: Number of client ranks.
            blocks: Place of the values in each field.
        """
        buffer, place, count = self._current, self._unsent, self.waiting
        if buffer is None or not count:
            return
        first = steps - count
        part = wire.Part(simulation, attempt, first, count, ranks, buffer, place, blocks)
        arrays = [array[place : self._place] for array in self._buffers[buffer]]
        self._parts[buffer] += 1
        self._unsent = self._place
        if self.full:
            self._current = None
            self._place = self._unsent = 0
        self.line.send(part, () if self._shared is not None else arrays)

    def collect(self) -> None:
        """Receives the buffers that the server has returned."""
        while (message := self.line.receive(wire.Credit, wire.Refused)) is not None:
            if isinstance(message, wire.Credit):
                for buffer in message.buffers:
                    self._returned(buffer)
            else:
                self.unshared = message.reason
                self._use_private_buffers()

    def _returned(self, buffer: int) -> None:
        self._parts[buffer] -= 1
        if not self._parts[buffer] and buffer != self._current:
            self._free.append(buffer)

    def close(self, until: float) -> None:
        """Waits until the server has everything, or a time (monotonic seconds), and closes the socket."""
        self.line.flush(until, wire.Credit, wire.Refused)
        self._handshake.close()
        self.line.socket.close(linger=0)
        if self._shared is not None:
            self._shared.close()

    def _offer(self) -> None:
        """Moves the buffers into memory that the server rank can read, if the system has such memory."""
        try:
            self._shared = shared = SharedBuffers(self._credit, self._blocks)
        except (OSError, AttributeError) as error:
            # The memory is full, or the system is not Linux.
            self.unshared = getattr(error, "strerror", None) or "not supported"
            return
        # The server returns each buffer once when it can read them.
        self._buffers, self._free, self._parts = shared.arrays, [], [1] * self._credit
        self.line.send(wire.Share(os.getpid(), shared.descriptor, shared.nonce, self._credit))

    def _use_private_buffers(self) -> None:
        if self._shared is not None:
            self._shared.close()
        self._shared = None
        self._buffers = [
            [np.empty(shape, dtype) for shape, dtype in self._blocks] for _ in range(self._credit)
        ]
        self._free, self._parts = list(range(self._credit)), [0] * self._credit

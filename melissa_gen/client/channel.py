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

    No buffer is free before the server has answered, so that a server that does not read is noticed at the first step.

    Args:
        line: The messages to the server rank.
        credit: Number of buffers.
        placements: The name and place of each field.
        share: Whether the server rank is on this machine and may read the buffers in place.

    Attributes:
        warned: Whether the user knows that the server has not accepted the connection.
        unshared: Why the buffers are not in shared memory although the server is on this machine; else empty.
    """

    def __init__(
        self,
        line: Conversation,
        credit: int,
        placements: Sequence[tuple[str, Placement]],
        *,
        share: bool,
    ) -> None:
        self.line = line
        self.warned = False
        self._handshake, self._opened = Handshake(line.socket), time.monotonic()
        self._names = [name for name, _ in placements]
        self._credit = credit
        self._blocks = [(p.extent, p.dtype) for _, p in placements]
        self.unshared = ""
        self._shared: SharedBuffers | None = None
        self._buffers: list[list[npt.NDArray[Any]]] = []
        self._free: list[int] = []
        self._use_private_buffers()
        if share:
            self._offer()
        line.ping()

    @property
    def has_credit(self) -> bool:
        """Whether a buffer is free."""
        return bool(self._free) and self.line.answered

    @property
    def refused(self) -> bool:
        """Whether the server has refused the keys of this client."""
        return self._handshake.refused

    def seconds_unaccepted(self) -> float:
        """Returns how long the server has not accepted the connection; 0.0 if it has."""
        self._handshake.update()
        return 0.0 if self._handshake.done else time.monotonic() - self._opened

    def fill(self, blocks: Mapping[str, npt.NDArray[Any]]) -> int:
        """Copies the blocks of a time step into a free buffer, of which there must be one; returns its number."""
        buffer = self._free.pop()
        for name, array in zip(self._names, self._buffers[buffer], strict=True):
            np.copyto(
                array,
                blocks[name],
                casting="same_kind" if blocks[name].dtype.kind == "f" else "unsafe",
            )
        return buffer

    def send(self, part: wire.Part) -> None:
        """Sends a part whose buffer was filled."""
        self.line.send(part, () if self._shared is not None else self._buffers[part.buffer])

    def collect(self) -> None:
        """Receives the buffers that the server has returned."""
        while (message := self.line.receive(wire.Credit, wire.Refused)) is not None:
            if isinstance(message, wire.Credit):
                self._free += message.buffers
            else:
                self.unshared = message.reason
                self._use_private_buffers()

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
        self._buffers, self._free = shared.arrays, []
        self.line.send(wire.Share(os.getpid(), shared.descriptor, shared.nonce, self._credit))

    def _use_private_buffers(self) -> None:
        if self._shared is not None:
            self._shared.close()
        self._shared = None
        self._buffers = [
            [np.empty(extent, dtype) for extent, dtype in self._blocks] for _ in range(self._credit)
        ]
        self._free = list(range(self._credit))

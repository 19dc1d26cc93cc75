"""One end of a conversation that survives cut connections: every message arrives once, and in order.

ZeroMQ reconnects by itself, but what was on its way is lost. Both ends therefore number their messages, keep those that
the other end has not confirmed, and ignore a message that is not the next one. Every message confirms all messages that
its sender has received before it.

A peer that waits for the server sends a ping with the number of its last message. The server has received everything
that was sent before the ping on the same connection, so that its answer shows what was lost, and the peer sends it
again. The server, in turn, repeats what the ping does not confirm and what was not sent just before. Only peers keep
time; a server with a thousand clients has no timers.

Pure: without sockets.
"""

import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

__all__ = ["PING_SECONDS", "Session", "new_identity"]

PING_SECONDS = 1.0
"""Time between two pings of a peer that waits, and time before a server repeats a message."""

M = TypeVar("M")


def new_identity() -> bytes:
    """Returns a random routing identity, which a socket keeps over all its connections."""
    # ZeroMQ reserves identities that begin with a zero byte.
    return b"M" + secrets.token_bytes(15)


class Session(Generic[M]):
    """The state of one end.

    Args:
        clock: Returns the time in seconds.

    Attributes:
        sent: Number of the last message that was sent; 0 before the first.
        received: Number of the last message that was received in order.
        answered: Whether the other end has answered a ping.
    """

    __slots__ = (
        "_clock",
        "_pinged",
        "_transmitted",
        "_unconfirmed",
        "answered",
        "received",
        "sent",
    )

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.sent = self.received = 0
        self.answered = False
        self._unconfirmed: deque[tuple[int, M]] = deque()
        self._transmitted = self._pinged = clock()

    def resume(self, received: int, sent: int) -> None:
        """Continues a conversation whose earlier state was forgotten.

        Args:
            received: Number of the last message that counts as received.
            sent: Number of the last message that the other end has received.
        """
        self.received, self.sent = received, sent

    @property
    def unconfirmed(self) -> int:
        """Number of messages that the other end has not confirmed."""
        return len(self._unconfirmed)

    def number(self) -> int:
        """Returns the number of the next message to send; `keep` must follow."""
        self.sent += 1
        return self.sent

    def keep(self, message: M) -> M:
        """Keeps the message with the last number until it is confirmed, and returns it."""
        self._unconfirmed.append((self.sent, message))
        self._transmitted = self._clock()
        return message

    def confirm(self, received: int) -> None:
        """Drops the messages that the other end has received."""
        while self._unconfirmed and self._unconfirmed[0][0] <= received:
            self._unconfirmed.popleft()

    def accept(self, number: int, received: int) -> bool:
        """Handles the numbers of a message that has arrived.

        Args:
            number: Number of the message; 0 for one outside the order, such as a ping.
            received: What it confirms.

        Returns:
            Whether to handle the message; otherwise it is repeated, or an earlier one was lost.
        """
        self.confirm(received)
        if number == 0:
            return True
        if number != self.received + 1:
            return False
        self.received = number
        return True

    def ping_due(self) -> bool:
        """Returns whether a waiting peer should ping now."""
        now = self._clock()
        if now - self._pinged < PING_SECONDS:
            return False
        self._pinged = now
        return True

    def after_pong(self, sent: int, received: int) -> Iterator[M]:
        """Yields the messages to repeat after the answer to a ping.

        Args:
            sent: The number in the ping.
            received: What the answer confirms; less than `sent` if messages were lost.
        """
        self.answered = True
        self.confirm(received)
        if received < sent:
            yield from self._repeated()

    def after_ping(self) -> Iterator[M]:
        """Yields the messages that a server repeats after a ping."""
        if self._unconfirmed and self._clock() - self._transmitted >= PING_SECONDS:
            yield from self._repeated()

    def _repeated(self) -> Iterator[M]:
        self._transmitted = self._clock()
        for _, message in list(self._unconfirmed):
            yield message

"""Messages between a client rank and one socket of the server, which survive cut connections."""

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import zmq

from melissa_gen.protocol import wire
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.session import Session

__all__ = ["Conversation"]

_POLL_MILLISECONDS = 50


class Conversation:
    """Sends numbered messages, repeats those that were lost, and receives the answers.

    Args:
        peer: The connected socket.
        contact: Secrets of the server process.
        rank: Rank of this process in its MPI job.
    """

    def __init__(self, peer: zmq.Socket[bytes], contact: Contact, rank: int) -> None:
        self.socket = peer
        self._contact, self._rank = contact, rank
        self._session: Session[tuple[bytes, Sequence[npt.NDArray[Any]]]] = Session()

    @property
    def answered(self) -> bool:
        """Whether the server has answered a ping."""
        return self._session.answered

    def send(self, message: wire.Message, arrays: Sequence[npt.NDArray[Any]] = ()) -> None:
        """Sends a message; the arrays must not change before the server has confirmed it."""
        head = self._encoded(message, self._session.number())
        self._transmit(*self._session.keep((head, arrays)))

    def ping(self) -> None:
        """Asks the server what it has received."""
        self._transmit(self._encoded(wire.Ping(self._session.sent)), ())

    def ping_if_due(self) -> None:
        """Asks, at most once a second, what the server has received, unless that is known."""
        if (self._session.unconfirmed or not self.answered) and self._session.ping_due():
            self.ping()

    def receive(self, *expected: type[wire.Message]) -> Any:
        """Returns the next message that has arrived, of one of the expected classes; None if there is none.

        Raises:
            ProtocolError: The message is damaged or of another class.
        """
        while self.socket.poll(0):
            raw = self.socket.recv()
            header = wire.decode_header(raw)
            if header.kind == wire.Pong.KIND:
                pong = wire.decode_body(header, raw, wire.Pong)
                for lost in self._session.after_pong(pong.sent, header.received):
                    self._transmit(*lost)
            elif self._session.accept(header.number, header.received):
                return wire.decode_body(header, raw, *expected)
        return None

    def wait(self, milliseconds: int) -> None:
        """Waits for a message, and pings the server, because the message may have been lost."""
        if self._session.ping_due():
            self.ping()
        self.socket.poll(milliseconds)

    def flush(self, until: float, *expected: type[wire.Message]) -> None:
        """Waits until the server has confirmed everything, or a time (monotonic seconds)."""
        if self._session.unconfirmed:
            self.ping()
        while self._session.unconfirmed and time.monotonic() < until:
            self.wait(_POLL_MILLISECONDS)
            while self.receive(*expected) is not None:
                pass

    def _encoded(self, message: wire.Message, number: int = 0) -> bytes:
        contact, received = self._contact, self._session.received
        return wire.encode(message, contact.epoch, self._rank, contact.token, number, received)

    def _transmit(self, head: bytes, arrays: Sequence[npt.NDArray[Any]]) -> None:
        # Without a connection, which a server has refused, ZeroMQ accepts nothing. A message is kept and sent again.
        with contextlib.suppress(zmq.Again):
            if not arrays:
                self.socket.send(head, zmq.NOBLOCK)
                return
            self.socket.send(head, zmq.NOBLOCK | zmq.SNDMORE)
            *first, last = arrays
            for array in first:
                self.socket.send(array.data, zmq.NOBLOCK | zmq.SNDMORE, copy=False)
            self.socket.send(last.data, zmq.NOBLOCK, copy=False)

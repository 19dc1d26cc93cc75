"""JSON messages between the control socket of server rank 0 and a peer, which survive cut connections."""

import logging
import time
from collections.abc import Mapping
from typing import Any

import zmq

from melissa_gen.errors import ProtocolError
from melissa_gen.protocol import json_messages
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.session import Session

__all__ = ["JsonLink"]

_log = logging.getLogger(__name__)

_FLUSH_SECONDS = 5.0
_POLL_MILLISECONDS = 50
_MOST_UNCONFIRMED = 240


class JsonLink:
    """The end of a server rank or of the launcher.

    Args:
        peer: The connected socket.
        contact: Secrets of the server process.
    """

    def __init__(self, peer: zmq.Socket[bytes], contact: Contact) -> None:
        self.socket = peer
        self._token = contact.token
        self._session: Session[dict[str, Any]] = Session()

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends a message without blocking; one that can't be sent now is sent after the next ping."""
        self._transmit(self._session.keep({**message, "number": self._session.number()}))

    @property
    def congested(self) -> bool:
        """Whether many messages are not confirmed, so that a report that a later one replaces should not be sent.

        The control thread reads nothing while validation sets are solved, and each message takes memory until then.
        """
        return self._session.unconfirmed >= _MOST_UNCONFIRMED

    def ping_if_due(self) -> None:
        """Asks, at most once a second, what the control socket has received."""
        if self._session.ping_due():
            self.ping()

    def receive(self) -> list[dict[str, Any]]:
        """Returns all messages that have arrived, without blocking; malformed ones are logged and skipped."""
        messages: list[dict[str, Any]] = []
        while self.socket.poll(0):
            try:
                message = self._read(self.socket.recv_multipart())
            except ProtocolError as error:
                _log.warning("a message of the server was skipped: %s", error)
                continue
            if message is not None:
                messages.append(message)
        return messages

    def _read(self, frames: list[bytes]) -> dict[str, Any] | None:
        """Returns the next message of the conversation, or None for any other."""
        message = json_messages.unpack(self._token, frames)
        number, received = json_messages.numbers(message)
        if message["type"] != "pong":
            return message if self._session.accept(number, received) else None
        sent = message.get("sent")
        if not isinstance(sent, int):
            msg = "a control message whose number is none"
            raise ProtocolError(msg)
        for lost in self._session.after_pong(sent, received):
            self._transmit(lost)
        return None

    def flush(self) -> None:
        """Waits, for a bounded time, until all messages are confirmed."""
        until = time.monotonic() + _FLUSH_SECONDS
        # A control thread that has never answered a ping will not answer the last one.
        while self._session.answered and self._session.unconfirmed and time.monotonic() < until:
            self.ping()
            self.socket.poll(_POLL_MILLISECONDS)
            self.receive()

    def ping(self) -> None:
        """Asks what the control socket has received."""
        self._transmit({"type": "ping", "sent": self._session.sent})

    def _transmit(self, message: dict[str, Any]) -> None:
        message["received"] = self._session.received
        try:
            self.socket.send_multipart(json_messages.pack(self._token, message), zmq.NOBLOCK)
        except zmq.Again:
            return

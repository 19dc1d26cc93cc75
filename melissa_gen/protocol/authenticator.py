"""Decides which peers may connect to the sockets of a server process (ZAP, the authentication protocol of ZeroMQ).

A peer is checked during the handshake, before it can send a message. A peer without the keys of the run can therefore
not make the server keep anything: ZeroMQ sets no limit to the number of frames in a message that has not ended.
"""

import contextlib
import hmac
import itertools
import threading
from collections.abc import Callable
from typing import Any

import zmq
from zmq.utils import z85

from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.refusals import Refusal, Refusals

__all__ = ["Authenticator"]

_ENDPOINT = "inproc://zeromq.zap.01"
_ANOTHER_MECHANISM = "a peer that does not log in to this run: it uses another security mechanism"
_NO_FRAMES = [b""] * 6
_watched = itertools.count()


class Authenticator:
    """Answers the requests of all sockets of a context, in a thread that ends with the context.

    Without it, the sockets that `bind_socket` opens on tcp accept no peer.

    Args:
        context: The context of the sockets.
        contact: The secrets that peers must know: the secret key of the clients (CURVE), or the token (PLAIN).
    """

    def __init__(self, context: zmq.Context[Any], contact: Contact) -> None:
        curve = contact.curve
        self._client_key = z85.decode(curve.client_public) if curve is not None else b""
        self._password = contact.token.hex().encode()
        self._refusals = Refusals()
        self._lock = threading.Lock()
        # The sockets belong to the threads: the end of the context must not close them from another one.
        self._own: zmq.Context[Any] = zmq.Context.shadow(context.underlying)
        socket = self._own.socket(zmq.REP)
        socket.linger = 0
        socket.bind(_ENDPOINT)
        self._start(self._answer, socket)

    def watch(self, bound: zmq.Socket[Any], name: str) -> None:
        """Counts the peers of a socket that use another security mechanism; ZeroMQ refuses them by itself.

        Args:
            bound: A socket of the context, before it is bound.
            name: Its name in refusals.
        """
        endpoint = f"inproc://refused-{next(_watched)}"
        bound.monitor(endpoint, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
        events = self._own.socket(zmq.PAIR)
        events.connect(endpoint)

        def count(socket: zmq.Socket[bytes]) -> None:
            socket.recv_multipart()
            self._refuse(name, _ANOTHER_MECHANISM)

        self._start(count, events)

    def take_refused(self) -> list[Refusal]:
        """Returns the peers that were refused since the last call (any thread)."""
        with self._lock:
            return self._refusals.take()

    def _start(
        self, handle: Callable[[zmq.Socket[bytes]], None], socket: zmq.Socket[bytes]
    ) -> None:
        threading.Thread(
            target=_repeat, args=(handle, socket), name="authenticator", daemon=True
        ).start()

    def _answer(self, socket: zmq.Socket[bytes]) -> None:
        """Answers one request: version, number, domain, address, identity, mechanism, and the credentials."""
        request = socket.recv_multipart()
        version, number, domain, *_, mechanism = (request + _NO_FRAMES)[:6]
        accepted = self._knows(mechanism, request[6:])
        if not accepted:
            reason = f"a peer without the keys of this run ({mechanism.decode(errors='replace')})"
            self._refuse(domain.decode(errors="replace"), reason)
        status, text = (b"200", b"OK") if accepted else (b"400", b"not a peer of this run")
        socket.send_multipart([version, number, status, text, b"", b""])

    def _refuse(self, name: str, reason: str) -> None:
        with self._lock:
            self._refusals.add(f"connections to {name}", reason)

    def _knows(self, mechanism: bytes, credentials: list[bytes]) -> bool:
        if mechanism == b"CURVE":
            return credentials[:1] != [] and hmac.compare_digest(credentials[0], self._client_key)
        known = mechanism == b"PLAIN" and len(credentials) > 1
        return known and hmac.compare_digest(credentials[1], self._password)


def _repeat(handle: Callable[[zmq.Socket[bytes]], None], socket: zmq.Socket[bytes]) -> None:
    """Handles what arrives until the context ends, and closes the socket, for which the end of the context waits."""
    try:
        with contextlib.suppress(zmq.ContextTerminated):
            while True:
                handle(socket)
    finally:
        socket.close()

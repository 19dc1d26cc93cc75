"""Decides which peers may connect to the sockets of a server process (ZAP, the authentication protocol of ZeroMQ).

A peer is checked during the handshake, before it can send a message. A peer without the keys of the run can therefore
not make the server keep anything: ZeroMQ sets no limit to the number of frames in a message that has not ended.
"""

import contextlib
import hmac
import threading
from typing import Any

import zmq
from zmq.utils import z85

from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.refusals import Refusal, Refusals

__all__ = ["Authenticator"]

_ENDPOINT = "inproc://zeromq.zap.01"


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
        # The socket belongs to the thread: the end of the context must not close it from another one.
        own: zmq.Context[Any] = zmq.Context.shadow(context.underlying)
        self._socket = own.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind(_ENDPOINT)
        threading.Thread(target=self._run, name="authenticator", daemon=True).start()

    def take_refused(self) -> list[Refusal]:
        """Returns the peers that were refused since the last call (any thread)."""
        with self._lock:
            return self._refusals.take()

    def _run(self) -> None:
        try:
            with contextlib.suppress(zmq.ContextTerminated):
                while True:
                    self._answer(self._socket.recv_multipart())
        finally:
            # The context can't end while a socket is open.
            self._socket.close()

    def _answer(self, request: list[bytes]) -> None:
        version, number, domain, _address, _identity, mechanism, *credentials = request
        accepted = self._knows(mechanism, credentials)
        if not accepted:
            reason = f"a peer without the keys of this run ({mechanism.decode(errors='replace')})"
            with self._lock:
                self._refusals.add(f"connections to {domain.decode()}", reason)
        status, text = (b"200", b"OK") if accepted else (b"400", b"not a peer of this run")
        self._socket.send_multipart([version, number, status, text, b"", b""])

    def _knows(self, mechanism: bytes, credentials: list[bytes]) -> bool:
        if mechanism == b"CURVE":
            return hmac.compare_digest(credentials[0], self._client_key)
        return mechanism == b"PLAIN" and hmac.compare_digest(credentials[1], self._password)

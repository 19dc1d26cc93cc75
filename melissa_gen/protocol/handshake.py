"""Observes whether a server has accepted the connection of a socket.

The kernel completes a TCP connection also if the server has no file descriptor for it. Only the handshake of ZeroMQ
shows that the server serves it. ZeroMQ performs the handshake in a thread of its own, also while the server reads no
messages because its reservoir is full.
"""

from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

__all__ = ["Handshake", "watch_handshake"]

_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH


def watch_handshake(peer: zmq.Socket[Any]) -> None:
    """Begins to observe a socket; must precede `connect`."""
    peer.get_monitor_socket(_EVENTS)


class Handshake:
    """The state of the handshake of a socket on which `watch_handshake` was called.

    Attributes:
        done: Whether the server has accepted the connection.
        refused: Whether the server has refused the keys.
    """

    def __init__(self, peer: zmq.Socket[Any]) -> None:
        self._peer = peer
        self._monitor: zmq.Socket[Any] | None = peer.get_monitor_socket(_EVENTS)
        self.done = self.refused = False

    def update(self) -> None:
        """Reads what has happened."""
        while self._monitor is not None and self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)["event"]
            self.refused = event == zmq.EVENT_HANDSHAKE_FAILED_AUTH
            self.done |= event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            if self.done:
                self.close()

    def close(self) -> None:
        """Ends the observation, which frees its sockets."""
        if self._monitor is not None:
            self._monitor = None
            self._peer.disable_monitor()

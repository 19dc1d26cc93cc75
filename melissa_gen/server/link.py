"""Messages between a server rank and a process that it has started, through a pair of connected sockets; no pickle."""

import json
import select
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["Link", "LinkEnded"]


class LinkEnded(EOFError):
    """The process at the other end has ended."""


class Link:
    """One end of the connection.

    Args:
        descriptor: The file descriptor of this end, which the link owns from now on.
    """

    def __init__(self, descriptor: int) -> None:
        self._connection = Connection(descriptor)
        self._lock = threading.Lock()
        # `Connection.poll` takes ten times as long.
        self._arrivals = select.poll()
        self._arrivals.register(self._connection, select.POLLIN)

    def send(self, message: Mapping[str, Any], payload: bytes = b"") -> None:
        """Sends a message of JSON types, and bytes that belong to it (any thread).

        Raises:
            OSError: The other process has ended.
        """
        frame = json.dumps(message).encode()
        with self._lock:
            self._connection.send_bytes(frame)
            self._connection.send_bytes(payload)

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """Waits for the next message; one thread alone may call this method.

        Raises:
            LinkEnded: The other process has ended.
        """
        try:
            return json.loads(self._connection.recv_bytes()), self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise LinkEnded from error

    def arrives(self, seconds: float) -> bool:
        """Waits for a message; returns whether there is one, or whether the other process has ended.

        The thread that calls `receive` calls this method.
        """
        return bool(self._arrivals.poll(1000 * seconds))

"""A TCP proxy in a thread for one port, which can cut, stall and delay its connections."""

import selectors
import socket
import threading
import time
from collections import deque


class Proxy:
    """Forwards bytes between peers that connect to `endpoint` and a target.

    Args:
        target: The endpoint to forward to, `tcp://host:port`.
        delay: Seconds by which all bytes arrive late.

    Attributes:
        endpoint: Where it listens.
        cuts: Number of connections that were cut.
    """

    def __init__(self, target, delay=0.0):
        self._delay, self._late = delay, deque()
        self._abandons, self._abandoned = False, []
        self._target = _address(target)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.endpoint = "tcp://{}:{}".format(*self._listening.getsockname())
        self.cuts = 0
        self.forwarded = 0
        self._lock = threading.Lock()
        self._pairs = {}
        self._near = set()
        self._cut_at = []
        self._stalled = threading.Event()
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut(self):
        """Resets all connections; new ones are forwarded."""
        with self._lock:
            for opened in list(self._pairs):
                self._drop(opened)

    def cut_after(self, *forwarded):
        """Resets all connections after each of these numbers of forwarded bytes, also inside of a message."""
        with self._lock:
            self._cut_at = sorted(forwarded)

    def abandon_after(self, *forwarded):
        """As `cut_after`, but resets the connections of the peers alone: the target keeps its ends open."""
        with self._lock:
            self._cut_at, self._abandons = sorted(forwarded), True

    def stall(self):
        """Stops forwarding; bytes that arrive meanwhile are lost with their connection (see `resume`)."""
        self._stalled.set()

    def resume(self):
        """Ends a stall: resets the connections that have lost bytes, and forwards new connections."""
        self.cut()
        self._stalled.clear()

    def close(self):
        """Ends the thread and all connections."""
        self._closing = True
        self._thread.join(timeout=10)
        self.cut()
        for one in (self._listening, *self._abandoned):
            one.close()
        self._selector.close()

    def _run(self):
        while not self._closing:
            with self._lock:
                self._forward_late()
            for key, _ in self._selector.select(0.002 if self._late else 0.02):
                with self._lock:
                    if key.fileobj is self._listening:
                        self._connect()
                    elif key.fileobj in self._pairs:
                        self._forward(key.fileobj)

    def _connect(self):
        near, _ = self._listening.accept()
        far = socket.create_connection(self._target)
        self._near.add(near)
        for one, other in ((near, far), (far, near)):
            self._pairs[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _forward(self, opened):
        try:
            data = opened.recv(65536)
            if not data:
                self._drop(opened, reset=False)
                return
            if self._stalled.is_set():
                return
            self.forwarded += len(data)
            if self._cut_at and self.forwarded >= self._cut_at[0]:
                self._cut_at.pop(0)
                self._pairs[opened].sendall(data[: len(data) // 2])
                for other in list(self._pairs):
                    self._abandon(other) if self._abandons else self._drop(other)
                return
            if self._delay:
                self._late.append((time.monotonic() + self._delay, opened, data))
            else:
                self._pairs[opened].sendall(data)
        except OSError:
            self._drop(opened)

    def _forward_late(self):
        """Forwards the bytes whose time has come."""
        while self._late and self._late[0][0] <= time.monotonic():
            _, opened, data = self._late.popleft()
            if opened in self._pairs:
                try:
                    self._pairs[opened].sendall(data)
                except OSError:
                    self._drop(opened)

    def _drop(self, opened, *, reset=True):
        if opened not in self._pairs:
            return
        self.cuts += reset
        both = (opened, self._pairs[opened])
        self._forget(*both)
        for one in both:
            self._reset(one) if reset else one.close()

    def _abandon(self, opened):
        if opened in self._near:
            far = self._pairs[opened]
            self._forget(opened, far)
            self._abandoned.append(far)
            self._reset(opened)
            self.cuts += 1

    def _forget(self, *both):
        for one in both:
            del self._pairs[one]
            self._near.discard(one)
            self._selector.unregister(one)

    @staticmethod
    def _reset(opened):
        linger = (1).to_bytes(4, "little") + bytes(4)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        opened.close()


def _address(endpoint):
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return host, int(port)

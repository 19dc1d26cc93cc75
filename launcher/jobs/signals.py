"""Signals as bytes on a socket, so that one poller watches them together with the messages."""

import contextlib
import signal
import socket
import threading
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["Signals"]

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Catches Ctrl-C, SIGTERM, SIGHUP and the ends of child processes while the block runs.

    Outside the main thread, where Python allows no handlers, nothing is caught.

    Attributes:
        reader: Becomes readable at every signal.
    """

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)
        self._interrupts = 0
        self._before: dict[int, Any] = {}
        self._wakeup = -1

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _ENDING:
                self._before[number] = signal.signal(number, self._interrupted)
            self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, self._child)
            self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before:
            signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self.reader.close()
        self._writer.close()

    def interrupts(self) -> int:
        """Returns how often the user asked to stop since the last call."""
        with contextlib.suppress(BlockingIOError):
            while self.reader.recv(4096):
                pass
        found, self._interrupts = self._interrupts, 0
        return found

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += 1

    def _child(self, number: int, frame: FrameType | None) -> None:
        """Only wakes the poller."""

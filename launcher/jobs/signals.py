"""Delivers signals through a socket, so that one poller can wait for signals and messages together."""

import contextlib
import signal
import socket
import threading
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["STOP_SIGNALS", "Signals", "ignore", "is_ignored"]

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def is_ignored(number: int) -> bool:
    """Returns whether this process was started with a signal ignored, for example SIGHUP by `nohup`."""
    return signal.getsignal(number) in (signal.SIG_IGN, ignore)


def ignore(number: int, frame: FrameType | None) -> None:
    """Handler that does nothing. Unlike SIG_IGN, the jobs do not inherit it."""


class Signals:
    """Context manager that handles SIGINT, SIGTERM, SIGHUP and SIGCHLD. Signals that were ignored stay ignored.

    Python installs signal handlers only in the main thread; in any other thread this context manager does nothing.

    Attributes:
        reader: A socket that becomes readable whenever a signal arrives.
    """

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)
        self._interrupts = 0
        self._previous_handlers: dict[int, Any] = {}
        self._previous_wakeup = -1

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                handler = ignore if is_ignored(number) else self._interrupted
                self._previous_handlers[number] = signal.signal(number, handler)
            self._previous_handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, self._child)
            self._previous_wakeup = signal.set_wakeup_fd(
                self._writer.fileno(), warn_on_full_buffer=False
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._previous_handlers:
            signal.set_wakeup_fd(self._previous_wakeup)
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self.reader.close()
        self._writer.close()

    def interrupts(self) -> int:
        """Returns the number of SIGINT, SIGTERM and SIGHUP signals since the last call."""
        with contextlib.suppress(BlockingIOError):
            while self.reader.recv(4096):
                pass
        found, self._interrupts = self._interrupts, 0
        return found

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += 1

    def _child(self, number: int, frame: FrameType | None) -> None:
        """Does nothing; the wake-up descriptor already makes `reader` readable."""

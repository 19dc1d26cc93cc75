"""Output of a long command that neither blocks nor ends the command: a thread writes it, and errors are ignored.

The reader of a pipe may end (`| head`, `| tee` after Ctrl-C), a disk may be full, a terminal may be closed or paused
with Ctrl-S. A study continues in all of these cases.
"""

import contextlib
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

__all__ = ["discard_output", "open_closed_descriptors", "steady_output"]

DRAIN_SECONDS = 30.0
"""How long the end of a command waits for a reader that does not read."""
_MOST_PENDING = 10_000
"""Pieces of text that wait for a reader; further ones are dropped."""

_log = logging.getLogger(__name__)


def open_closed_descriptors() -> None:
    """Opens /dev/null as standard input, output or error if the caller has closed it (`>&-`).

    Otherwise the next file or socket would get its number, and output would be written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def discard_output() -> None:
    """Discards what standard output still holds and all that is printed later."""
    if sys.stdout is sys.__stdout__:
        _redirect_to_null(1)


@contextmanager
def steady_output(drain: float = DRAIN_SECONDS) -> Iterator[None]:
    """Writes standard output and standard error in a thread while the block runs.

    Streams that were replaced by another program, such as those of a notebook, are left as they are.

    Args:
        drain: How long the end of the block waits for a reader that does not read (seconds).
    """
    before = sys.stdout, sys.stderr
    if sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__ or None in before:
        yield
        return
    writer = _Writer()
    sys.stdout = _QueuedStream(before[0], writer)
    sys.stderr = _QueuedStream(before[1], writer)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        writer.close(drain)


class _Writer:
    """Writes the text of both streams in the order in which it was printed."""

    def __init__(self) -> None:
        self._pending: queue.Queue[tuple[TextIO, str] | None] = queue.Queue(_MOST_PENDING)
        self._lost: set[int] = set()
        self._thread = threading.Thread(target=self._run, name="output", daemon=True)
        self._thread.start()

    def put(self, stream: TextIO, text: str) -> None:
        with contextlib.suppress(queue.Full):
            self._pending.put_nowait((stream, text))

    def close(self, patience: float) -> None:
        """Writes what is pending, for at most `patience` seconds."""
        deadline = time.monotonic() + patience
        with contextlib.suppress(queue.Full):
            self._pending.put(None, timeout=patience)
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while (item := self._pending.get()) is not None:
            stream, text = item
            number = stream.fileno()
            if number in self._lost:
                continue
            try:
                _write_all(number, text.encode(stream.encoding or "utf-8", "backslashreplace"))
            except OSError as error:
                self._lost.add(number)
                # What other code or a library prints later must not fail either.
                _redirect_to_null(number)
                name = "standard output" if number == 1 else "standard error"
                _log.warning("%s can't be written any more: %s", name, error.strerror)


class _QueuedStream:
    """A text stream whose text is written by a `_Writer`; everything else is that of the original stream."""

    def __init__(self, original: TextIO, writer: _Writer) -> None:
        self._original, self._writer = original, writer
        original.flush()

    def write(self, text: str) -> int:
        if text:
            self._writer.put(self._original, text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Does nothing: the thread writes as soon as the reader reads."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


def _write_all(number: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(number, data) :]
        except BlockingIOError:
            # Another program has made the terminal or pipe non-blocking.
            time.sleep(0.05)


def _redirect_to_null(number: int) -> None:
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)

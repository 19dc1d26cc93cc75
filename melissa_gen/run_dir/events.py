"""The event log of a run: one JSON object a line, written by the server, read by all others."""

import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from melissa_gen.errors import RunError

__all__ = [
    "Event",
    "EventLog",
    "follow",
    "last_status",
    "number_at",
    "read_events",
    "recent_events",
]

Event = dict[str, Any]

BLOCK_BYTES = 1 << 16


def plain(value: Any) -> Any:
    """Converts a value to what JSON can hold: arrays to lists, NaN and infinities to None."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy arrays and scalars, torch tensors
        return plain(value.tolist())
    return str(value)


class EventLog:
    """Appends events to a file, from any thread, each as one whole line.

    A restarted run opens the same file and continues it. A disk that fills up ends the logging, not
    the run: the first `write` that fails raises, every later one is dropped, and `failed` is set.

    Args:
        path: The file, usually `events.jsonl` in the run directory; its folder must exist.

    Attributes:
        path: The file.
        failed: Whether a write has failed, so that events are missing from here on.

    Raises:
        RunError: The file can't be opened.

    Example:
        >>> with EventLog(run_dir / "events.jsonl") as log:
        ...     log.write("validation", batches=100, nrmse={"mean": 0.02}, seconds=1.5)
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.failed = False
        self._lock = threading.Lock()
        try:
            # Unbuffered: each event is one write of the operating system, and after a full disk
            # there is no remainder left that would fail again on closing.
            self._file = self.path.open("ab", buffering=0)
            if not _ends_with_newline(self.path):  # a killed run left half a line
                self._file.write(b"\n")
        except OSError as error:
            text = f"can't write the event log {self.path}: {error.strerror or error}"
            raise RunError(text) from error

    def write(self, event: str, **fields: Any) -> Event:
        """Appends one event with the time of now.

        Args:
            event: The kind of event, such as "status".
            **fields: What belongs to it; numpy and torch values are converted, NaN becomes null. A field
                `time` stands in for the time of now.

        Raises:
            RunError: The line can't be written (disk full); raised by the first failing call alone.
        """
        record = {"time": time.time(), "event": event, **plain(fields)}
        line = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        data = memoryview(line.encode("utf-8", "replace") + b"\n")
        with self._lock:
            if self.failed or self._file.closed:
                return record
            try:
                while data:
                    data = data[self._file.write(data) :]
            except OSError as error:
                self.failed = True
                text = (
                    f"can't write to the event log {self.path}: {error.strerror or error}; "
                    "the run goes on without it"
                )
                raise RunError(text) from error
        return record

    def close(self) -> None:
        """Closes the file; later writes are dropped."""
        with self._lock:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_events(path: Path | str) -> Iterator[Event]:
    """Reads the events of a run in the order in which they were written.

    Lines that are not whole (the run was killed in the middle of one, or is writing it right now)
    are passed over; a file that does not exist yet holds no events.

    Args:
        path: The file `events.jsonl`.

    Yields:
        Each event, with at least the keys `time` (unix seconds) and `event`.
    """
    if not Path(path).exists():
        return
    with Path(path).open("rb") as file:
        for line in file:
            event = _parsed(line)
            if event is not None:
                yield event


def last_status(path: Path | str) -> Event | None:
    """Returns the newest `status` event, or None; reads the end of the file alone."""
    for event in _events_from_end(path):
        if event["event"] == "status":
            return event
    return None


def recent_events(
    path: Path | str, count: int = 10, without: Iterable[str] = ("status",)
) -> list[Event]:
    """Returns the last `count` events, oldest first; reads the end of the file alone.

    Args:
        path: The file `events.jsonl`.
        count: How many to return at most.
        without: Kinds of event to leave out.
    """
    skipped = frozenset(without)
    found: list[Event] = []
    for event in _events_from_end(path):
        if len(found) >= count:
            break
        if event["event"] not in skipped:
            found.append(event)
    return found[::-1]


def follow(
    path: Path | str,
    stop: Callable[[], bool] = lambda: False,
    interval: float = 0.5,
    from_start: bool = False,
) -> Iterator[Event]:
    """Yields events as they are appended, until the run has finished or `stop` says so.

    Args:
        path: The file `events.jsonl`; it may not exist yet.
        stop: Asked whenever no new event has come; True ends the iteration.
        interval: Seconds between two looks at the file.
        from_start: Whether to begin with the events already there.

    Yields:
        Each new event; the last one is `run_finished`, unless `stop` came first.
    """
    path = Path(path)
    position = 0
    if not from_start and path.exists():
        position = path.stat().st_size
    rest = b""
    while True:
        data = b""
        if path.exists():
            with path.open("rb") as file:
                file.seek(position)
                data = file.read()
                position = file.tell()
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            event = _parsed(line)
            if event is not None:
                yield event
                if event["event"] == "run_finished":
                    return
        if not data:
            if stop():
                return
            time.sleep(interval)


def number_at(event: Mapping[str, Any], *keys: str) -> float:
    """Returns the number under nested keys, or NaN where a key is absent or holds no number.

    Args:
        event: An event, or any nested mapping such as `summary.json`.
        *keys: The way to the number: `number_at(status, "training", "loss")`.
    """
    value: Any = event
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    return float(value)


def _parsed(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event and "time" in event else None


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _events_from_end(path: Path | str) -> Iterator[Event]:
    if not Path(path).exists():
        return
    with Path(path).open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        head = b""  # the first, perhaps incomplete line of what has been read so far
        while position > 0:
            size = min(BLOCK_BYTES, position)
            position -= size
            file.seek(position)
            head, *lines = (file.read(size) + head).split(b"\n")
            for line in reversed(lines):
                event = _parsed(line)
                if event is not None:
                    yield event
        event = _parsed(head)
        if event is not None:
            yield event

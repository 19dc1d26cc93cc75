"""Event log of a run: one JSON object per line, written by the server and read by all other processes."""

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
from melissa_gen.run_dir.strict_json import plain

__all__ = [
    "Event",
    "EventLog",
    "EventReader",
    "end_of_events",
    "error_name",
    "follow",
    "last_status",
    "number_at",
    "read_events",
    "recent_events",
]

Event = dict[str, Any]

BLOCK_BYTES = 1 << 16


class EventLog:
    """Appends events to a file, each as one complete line. Thread-safe.

    A resumed run appends to the same file, without the incomplete line that a killed run or a full disk may have
    left. A full disk ends the logging, not the run: the first `write` that fails raises an error and sets `failed`;
    later events are dropped.

    Args:
        path: The file, usually `events.jsonl` in the run directory; its folder must exist.

    Attributes:
        path: The file.
        failed: Whether a write has failed. Later events are missing from the file.

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
            # Unbuffered: each event is one system call, and after a full disk no data remains in a
            # buffer that would fail again in close.
            self._file = self.path.open("ab", buffering=0)
            # A run that was killed may have left an incomplete line. Every line is one JSON object, also for
            # programs that read the file themselves.
            end = end_of_events(self.path)
            if end < self.path.stat().st_size:
                os.truncate(self.path, end)
        except OSError as error:
            text = f"can't write the event log {self.path}: {error.strerror or error}"
            raise RunError(text) from error

    def write(self, event: str, **fields: Any) -> Event:
        """Appends one event with the current time.

        Args:
            event: Kind of event, such as "status".
            **fields: Fields of the event. Numpy and torch values are converted, NaN becomes null. A field `time`
                replaces the current time.

        Returns:
            The event as written.

        Raises:
            RunError: The line can't be written, e.g. because the disk is full. Only the first failing call raises.
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
                text = f"can't write to the event log {self.path}: {error.strerror or error}"
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

    Incomplete lines, which a killed or running process may leave, are skipped. A file that does not
    exist yet holds no events.

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


class EventReader:
    """Reads a growing event log in parts, each event once.

    Args:
        path: The file `events.jsonl`; it need not exist yet.
        position: Where to begin (bytes).

    Attributes:
        position: End of the last complete line that was read (bytes).
    """

    def __init__(self, path: Path | str, position: int = 0) -> None:
        self.path, self.position = Path(path), position

    def read(self) -> Iterator[Event]:
        """Yields the events that were appended since the last call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.position)
            for line in file:
                if not line.endswith(b"\n"):
                    # The rest of this line is still being written.
                    return
                self.position += len(line)
                event = _parsed(line)
                if event is not None:
                    yield event


def end_of_events(path: Path | str) -> int:
    """Returns the end of the last complete line (bytes); 0 if there is none, or no file.

    This is where a reader of later events begins: an incomplete line may still be completed, and a resumed run
    removes it.
    """
    if not Path(path).exists():
        return 0
    with Path(path).open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            begin = max(0, end - BLOCK_BYTES)
            file.seek(begin)
            found = file.read(end - begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            end = begin
    return 0


def last_status(path: Path | str) -> Event | None:
    """Returns the newest `status` event, or None. Reads only the end of the file."""
    for event in _events_from_end(path):
        if event["event"] == "status":
            return event
    return None


def recent_events(
    path: Path | str, count: int = 10, without: Iterable[str] = ("status",)
) -> list[Event]:
    """Returns the last `count` events, oldest first. Reads only the end of the file.

    Args:
        path: The file `events.jsonl`.
        count: Maximum number of events.
        without: Kinds of events to omit.
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
    """Yields events as they are appended, until the run has finished or `stop` returns True.

    Args:
        path: The file `events.jsonl`; it need not exist yet.
        stop: Called whenever there is no new event; True ends the iteration.
        interval: Polling interval in seconds.
        from_start: Whether to begin with the existing events.

    Yields:
        Each new event. The last one is `run_finished`, unless `stop` ended the iteration.
    """
    reader = EventReader(path, 0 if from_start else end_of_events(path))
    while True:
        before = reader.position
        for event in reader.read():
            yield event
            if event["event"] == "run_finished":
                return
        if reader.position == before:
            if stop():
                return
            time.sleep(interval)


def error_name(record: Mapping[str, Any]) -> str:
    """Returns the name of the validation error: `nrmse`, or `rmse` where `training.metric` is `absolute`.

    Args:
        record: An event `validation`, or the section `validation` of the summary.
    """
    return "rmse" if "rmse" in record else "nrmse"


def number_at(event: Mapping[str, Any], *keys: str) -> float:
    """Returns the number under nested keys, or NaN if a key is missing or its value is not a number.

    Args:
        event: An event, or any nested mapping such as `summary.json`.
        *keys: Keys from the outermost to the innermost: `number_at(status, "training", "loss")`.
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


def _events_from_end(path: Path | str) -> Iterator[Event]:
    if not Path(path).exists():
        return
    with Path(path).open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        # The first, possibly incomplete line of the data read so far.
        head = b""
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

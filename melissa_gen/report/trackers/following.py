"""Follows the events of a run for one tracker: `python -m melissa_gen.report.trackers.following NAME RUN_DIR POSITION`.

The launcher starts this process, so that a tracker that fails or hangs delays nothing else. The file `events.jsonl` is
the queue: this process reads what was appended, keeps a bounded number of records, and counts those that it drops
because the tracker is too slow. The end of its standard input is the end of the study.
"""

import json
import math
import os
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from melissa_gen.report.scalars import scalars
from melissa_gen.report.trackers.packages import make_tracker
from melissa_gen.report.trackers.tracker import TrackedRun, Tracker
from melissa_gen.run_dir.events import Event, EventReader, number_at
from melissa_gen.run_dir.folder import write_json

__all__ = ["TrackedEvents", "track"]

INTERVAL = 5.0
"""Seconds between two looks at the events, and between two statuses that are recorded."""
LONGEST_CALL = 120.0
"""Seconds after which a tracker that does not return is switched off."""
MOST_PENDING = 200
NICENESS = 5
FOLDER = "trackers"
ARTIFACTS = ("report.html", "summary.json", "study.yaml")
SURROGATE_FOLDERS = ("final", "latest", "previous")
SURROGATE_FILES = ("model.*", "*.py")


class _Record(NamedTuple):
    metrics: dict[str, float]
    step: int
    time: float


class TrackedEvents:
    """The metrics of a run in the order of its events, of which a bounded number waits for the tracker.

    Args:
        reader: Reads the events.
        most: Largest number of records that wait; older ones are dropped.

    Attributes:
        dropped: Number of records that were dropped.
    """

    def __init__(self, reader: EventReader, most: int = MOST_PENDING) -> None:
        self._reader, self._pending = reader, deque[_Record](maxlen=most)
        self._batches, self._next_status = 0, -math.inf
        self._skipped: Event | None = None
        self.dropped = 0

    def read(self, *, last: bool = False) -> None:
        """Reads the new events.

        Args:
            last: Whether no more events will come, so that the last status counts in any case.
        """
        for event in self._reader.read():
            batches = number_at(event, "training", "batches")
            if math.isfinite(batches):
                self._batches = int(batches)
            if event["event"] == "status":
                if event["time"] < self._next_status:
                    self._skipped = event
                    continue
                self._skipped = None
                self._next_status = event["time"] + INTERVAL
            self._add(event)
        if last and self._skipped is not None:
            self._add(self._skipped)

    def take(self) -> Iterator[_Record]:
        """Removes and yields the records that wait, the oldest first."""
        while self._pending:
            yield self._pending.popleft()

    def _add(self, event: Event) -> None:
        metrics, step = {}, self._batches
        for name, value, at in scalars(event, self._batches):
            metrics[name] = value
            step = at
        if event["event"] == "generation":
            # Trackers have one axis, on which all metrics of a run are drawn.
            metrics["sampler/generation"], step = float(step), self._batches
        if metrics:
            self.dropped += len(self._pending) == self._pending.maxlen
            self._pending.append(_Record(metrics, step, event["time"]))


def track(
    tracker: Tracker,
    run_dir: Path,
    name: str,
    events: TrackedEvents,
    ended: Callable[[float], bool],
    switch_off: Callable[[str], None],
    longest_call: float = LONGEST_CALL,
) -> str:
    """Records a run until its end.

    Args:
        tracker: The tracker.
        run_dir: The run directory, which holds `study.yaml`.
        name: Name of the tracker.
        events: The events of the run.
        ended: Waits for a number of seconds, and returns whether the study has ended.
        switch_off: Called in another thread if a call of the tracker does not return in time; ends the process.
        longest_call: The longest time that a call may take (seconds).

    Returns:
        What is missing from the record, as a sentence; "" if it is complete.

    Raises:
        Exception: Whatever the tracker raises.
    """

    @contextmanager
    def limited() -> Iterator[None]:
        text = f"it has not answered for {longest_call:g} s"
        timer = threading.Timer(longest_call, switch_off, (text,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def record(*, last: bool) -> None:
        events.read(last=last)
        for metrics, step, time in events.take():
            with limited():
                tracker.log(metrics, step, time)

    with limited():
        _begin(tracker, run_dir, name)
    while not ended(INTERVAL):
        record(last=False)
    record(last=True)
    for artifact, files in _artifacts(run_dir):
        with limited():
            tracker.log_artifact(artifact, files)
    with limited():
        summary = _mapping(run_dir / "summary.json")
        tracker.finish(succeeded=summary.get("status") == "finished")
    if events.dropped:
        return f"{events.dropped} records of metrics are missing, because it was too slow"
    return ""


def _begin(tracker: Tracker, run_dir: Path, name: str) -> None:
    folder = run_dir / FOLDER
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.json"
    earlier = str(_mapping(file).get("run", ""))
    study = yaml.safe_load((run_dir / "study.yaml").read_text("utf-8"))
    run = TrackedRun(str(study["name"]), run_dir.name, folder, dict(_flat(study)), earlier)
    write_json(file, {"run": tracker.start(run)})


def _flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted keys of a study that have a value, with lists as text."""
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, str | int | float):
            yield f"{prefix}{key}", value
        elif value is not None:
            yield f"{prefix}{key}", json.dumps(value, default=str)


def _artifacts(run_dir: Path) -> Iterator[tuple[str, list[Path]]]:
    """Yields the files of a run that has ended, and those of its trained surrogate."""
    for path in (run_dir / name for name in ARTIFACTS):
        if path.exists():
            yield path.stem, [path]
    folders = (run_dir / "checkpoints" / name for name in SURROGATE_FOLDERS)
    folder = next((one for one in folders if (one / "model.json").exists()), None)
    if folder is not None:
        files = [one for pattern in SURROGATE_FILES for one in folder.glob(pattern)]
        yield "surrogate", sorted(files)


def _mapping(file: Path) -> dict[str, Any]:
    """Reads a JSON object; a file that is missing or damaged holds none."""
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _main(name: str, run_dir: Path, position: int) -> None:
    os.nice(NICENESS)
    # Packages print what they like, which belongs into a log file.
    said = os.fdopen(os.dup(1), "w", encoding="utf-8")
    log = os.open(run_dir / "logs" / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)

    def switch_off(reason: str) -> None:
        try:
            said.write(f"the tracker {name} is switched off: {' '.join(reason.split())}\n")
            said.flush()
        finally:
            # Also where the launcher was killed, so that there is no reader. Threads of a package may hang, too.
            os._exit(0)

    over = threading.Event()
    threading.Thread(target=_watch_input, args=(over,), daemon=True).start()
    events = TrackedEvents(EventReader(run_dir / "events.jsonl", position))
    try:
        missing = track(make_tracker(name), run_dir, name, events, over.wait, switch_off)
    except BaseException as error:
        traceback.print_exc()
        switch_off(f"{type(error).__name__}: {error}")
        return
    if missing:
        said.write(f"the tracker {name}: {missing}\n")
    said.flush()


def _watch_input(over: threading.Event) -> None:
    sys.stdin.buffer.read()
    over.set()


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))

"""The events of a run in bounded memory, read in parts while the run writes them."""

import math
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from melissa_gen.run_dir.events import Event, EventReader, number_at
from melissa_gen.run_dir.thinning import EvenSample, Newest

__all__ = ["RecordedEvents"]

KEPT_STATUSES = 4000
PAUSE_SECONDS = 30.0
"""A longer gap between events is a pause between two starts of the run, because a status is written every second."""
THINNED = ("validation", "generation")
"""Kinds of events that are drawn as curves. Of the others, the newest are kept."""


class RecordedEvents:
    """The events of a run, of which a bounded number is kept.

    Args:
        path: The file `events.jsonl`; it need not exist yet.
        kept: Largest number of events of each kind that are kept.
    """

    def __init__(self, path: Path, kept: int) -> None:
        self._reader, self._kept = EventReader(path), kept
        self._statuses = EvenSample[tuple[float, Event]](min(kept, KEPT_STATUSES))
        # The other events by kind, with their place in the file.
        self._thinned = {kind: EvenSample[tuple[int, Event]](kept) for kind in THINNED}
        self._newest: dict[str, Newest[tuple[int, Event]]] = {}
        self._place, self._clock, self._latest = 0, 0.0, math.nan

    def read_new(self) -> None:
        """Adds the events that were appended to the file since the last call."""
        for event in self._reader.read():
            self._add(event)

    def found(self) -> tuple[list[Event], npt.NDArray[np.float64], list[Event]]:
        """Returns the `status` events, the running time at each of them (seconds), and the other events in order."""
        others = [*chain(*self._thinned.values(), *self._newest.values())]
        return (
            [event for _, event in self._statuses],
            np.array([moment for moment, _ in self._statuses]),
            [event for _, event in sorted(others, key=lambda one: one[0])],
        )

    def _add(self, event: Event) -> None:
        now, kind = number_at(event, "time"), event["event"]
        if 0 < now - self._latest < PAUSE_SECONDS:
            self._clock += now - self._latest
        self._latest = now if math.isnan(self._latest) else max(self._latest, now)
        self._place += 1
        if kind == "status":
            self._statuses.add((self._clock, event))
            return
        if kind == "resumed":
            # Training after the checkpoint from which a run was resumed was repeated.
            batches = number_at(event, "batches")
            self._statuses.keep(_until(batches, "training", "batches"))
            self._thinned["validation"].keep(_until(batches, "batches"))
        # Several threads write events, so that their order may differ slightly from their times.
        event["running_seconds"] = max(0.0, self._clock - (self._latest - now))
        if kind in self._thinned:
            self._thinned[kind].add((self._place, event))
        else:
            self._newest.setdefault(str(kind), Newest(self._kept)).add((self._place, event))


def _until(batches: float, *keys: str) -> Callable[[tuple[float, Event]], bool]:
    """Returns a function that says whether an event was written before any later batch."""
    return lambda one: not number_at(one[1], *keys) > batches

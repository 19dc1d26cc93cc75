"""Where the time of a thread of the server goes."""

import time
from collections.abc import Iterable, Mapping

__all__ = ["INGEST_PARTS", "PARTS", "Stopwatch"]

PARTS = ("waiting", "agreeing", "gathering", "training", "validating", "saving")
"""Kinds of work: waiting for samples, deciding on the next step, which all server ranks agree on, gathering a batch
from the reservoir, training on it, validating, and saving checkpoints."""
INGEST_PARTS = ("waiting", "blocked", "receiving", "assembling", "copying", "storing", "answering")
"""Kinds of work of the ingest thread: waiting for messages, waiting for room in the reservoir, reading messages,
deciding which samples their values belong to, copying the values into the rows of the reservoir, giving whole samples
to reservoir and side sinks, and all else: returning credit, reporting, and taking its state for checkpoints."""


class Stopwatch:
    """Adds up the seconds of each kind of work, which follow each other without a gap.

    On a GPU, work is counted where the processor waits for its result.

    Args:
        parts: The kinds of work.

    Attributes:
        seconds: Name of each kind of work to seconds.
    """

    def __init__(self, parts: Iterable[str] = PARTS) -> None:
        self.seconds = dict.fromkeys(parts, 0.0)
        self._last = time.monotonic()

    def start(self) -> None:
        """Begins to count; the time before belongs to no part."""
        self._last = time.monotonic()

    def lap(self, part: str) -> None:
        """Counts the time since the last call for a part."""
        now = time.monotonic()
        self.seconds[part] += now - self._last
        self._last = now

    def restore(self, seconds: Mapping[str, float]) -> None:
        """Continues from the seconds of an earlier server."""
        self.seconds |= {part: seconds[part] for part in self.seconds if part in seconds}

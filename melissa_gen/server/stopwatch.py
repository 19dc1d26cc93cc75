"""Where the time of the trainer goes."""

import time
from collections.abc import Mapping

__all__ = ["PARTS", "Stopwatch"]

PARTS = ("waiting", "agreeing", "gathering", "training", "validating", "saving")
"""Kinds of work: waiting for samples, deciding on the next step, which all server ranks agree on, gathering a batch
from the reservoir, training on it, validating, and saving checkpoints."""


class Stopwatch:
    """Adds up the seconds of each kind of work, which follow each other without a gap.

    On a GPU, work is counted where the processor waits for its result.

    Attributes:
        seconds: Name of each of `PARTS` to seconds.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
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
        self.seconds |= {part: seconds[part] for part in PARTS if part in seconds}

"""Counts of refused messages by kind of reason, whose number is limited.

A stranger may send messages without end, and choose what a reason contains: numbers, names, sizes. Reasons that differ
only in their numbers are one kind, and all kinds after the first ones are counted together.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from melissa_gen.protocol.failures import Failure

__all__ = ["MOST_KINDS", "Refusal", "Refusals"]

MOST_KINDS = 16
"""Kinds of reasons that are counted separately for one source."""
_LONGEST_REASON = 400
_NUMBERS = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class Refusal:
    """Messages that were refused for one kind of reason.

    Attributes:
        source: Where they arrived.
        reason: The reason of the first of them, as a sentence.
        count: Number of messages.
        failure: The reason as a code with values, if it has one.
    """

    source: str
    reason: str
    count: int
    failure: Failure | None = None

    def as_list(self) -> list[str | int]:
        """Returns source, reason and count for a JSON message."""
        return [self.source, self.reason, self.count]


@dataclass
class _Kind:
    reason: str
    failure: Failure | None = None
    count: int = 0
    told: float = -float("inf")


class Refusals:
    """Counts refused messages.

    Args:
        interval: Seconds between two reports of the same kind.
        clock: Returns the time in seconds.
    """

    def __init__(self, interval: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval, self._clock = interval, clock
        self._kinds: dict[str, dict[str, _Kind]] = {}

    def add(self, source: str, reason: str, count: int = 1, failure: Failure | None = None) -> None:
        """Counts messages.

        Args:
            source: Where they arrived; one of a fixed set.
            reason: Why they were refused.
            count: Number of messages.
            failure: The reason as a code with values, if it has one.
        """
        kinds = self._kinds.setdefault(source, {})
        text = reason[:_LONGEST_REASON]
        name = _NUMBERS.sub("0", text)
        if name not in kinds and len(kinds) >= MOST_KINDS:
            name, text, failure = "", "further reasons", None
        kind = kinds.setdefault(name, _Kind(text))
        if kind.count == 0:
            kind.reason, kind.failure = text, failure
        kind.count += count

    def take(self, *, last: bool = False) -> list[Refusal]:
        """Returns what was counted since the last report of each kind; only kinds whose interval is over.

        Args:
            last: All kinds, regardless of the interval.
        """
        now, taken = self._clock(), []
        for source, kinds in self._kinds.items():
            for kind in kinds.values():
                if kind.count and (last or now - kind.told >= self._interval):
                    taken.append(Refusal(source, kind.reason, kind.count, kind.failure))
                    kind.count, kind.told = 0, now
        return taken

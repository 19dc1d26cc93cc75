"""Samples grouped by their loss, so that choosing one by its loss takes a constant time."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["LossLevels"]

_LOWEST, _HIGHEST, _COUNT = 1e-12, 1e12, 1024


class LossLevels:
    """Slots grouped by their loss, rounded to one of 1,024 values at equal ratios of 1.056 from 1e-12 to 1e12.

    Level 0 holds the slots whose loss is unknown. Each operation takes a time that does not depend on the number of
    slots.

    Args:
        slots: Number of slots.

    Attributes:
        counts: Number of slots of each level, `(1 + 1024,)`.
        values: Loss of each level, `(1 + 1024,)`; 0 for level 0.
    """

    def __init__(self, slots: int) -> None:
        self.values = np.concatenate([[0.0], np.geomspace(_LOWEST, _HIGHEST, _COUNT)])
        self.counts = np.zeros(1 + _COUNT, np.int64)
        self._members: list[list[int]] = [[] for _ in self.counts]
        # Level of each slot, -1 if it is in none, and its place among the members of the level.
        self._level, self._place = [-1] * slots, [0] * slots

    def level(self, slot: int) -> int:
        """Returns the level of a slot, or -1."""
        return self._level[slot]

    def level_of(self, loss: float) -> int:
        """Returns the level of a loss; 0 if the loss is not finite."""
        if not np.isfinite(loss):
            return 0
        inside = min(max(loss, _LOWEST), _HIGHEST)
        ratio = np.log(inside / _LOWEST) / np.log(_HIGHEST / _LOWEST)
        return 1 + round(float(ratio) * (_COUNT - 1))

    def put(self, slot: int, level: int) -> None:
        """Moves a slot to a level; -1 removes it."""
        before = self._level[slot]
        if before >= 0:
            members, place = self._members[before], self._place[slot]
            members[place] = members[-1]
            self._place[members[place]] = place
            members.pop()
            self.counts[before] -= 1
        self._level[slot] = level
        if level >= 0:
            self._place[slot] = len(self._members[level])
            self._members[level].append(slot)
            self.counts[level] += 1

    def mean(self) -> float:
        """Returns the mean of the known losses; NaN if none is known."""
        known = int(self.counts[1:].sum())
        return float(self.counts @ self.values) / known if known else float("nan")

    def choose(self, weights: NDArray[np.float64], random: np.random.Generator) -> int:
        """Chooses a level in proportion to count and weight `(1 + 1024,)`, then one of its slots uniformly."""
        cumulative = np.cumsum(self.counts * weights)
        level = int(np.searchsorted(cumulative, random.random() * cumulative[-1], side="right"))
        members = self._members[level]
        return members[int(random.integers(len(members)))]

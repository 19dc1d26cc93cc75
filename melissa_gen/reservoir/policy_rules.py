"""What a reservoir policy decides: which rows are selected, kept and evicted."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melissa_gen.reservoir.samples import Draw, Selection

__all__ = ["PolicyRules"]


class PolicyRules(ABC):
    """The methods that a policy implements. `Policy` calls the private ones with its lock held.

    A row is what is stored and evicted at once: a sample, or a segment of several time steps.

    Attributes:
        forms_windows: Whether rows may be segments.
    """

    forms_windows = False

    def offer(self, n: int) -> Draw | None:
        """Selects n samples for the next draw in advance, if the policy can do so; see `Reservoir.offer`."""
        return None

    @abstractmethod
    def _size(self) -> int:
        """Number of samples stored."""

    @abstractmethod
    def _unseen(self) -> int:
        """Number of stored samples that have never been drawn."""

    @abstractmethod
    def _needed(self, n: int) -> int:
        """Number of samples that must be stored for a draw of n while reception is open."""

    @abstractmethod
    def _insert(self, slot: int) -> None:
        """Adds a filled slot to the stored samples."""

    @abstractmethod
    def _evictable(self) -> int:
        """Number of stored samples that can be evicted."""

    @abstractmethod
    def _evict(self) -> int:
        """Evicts one sample and returns its slot."""

    def _exchange(self, rows: Sequence[int], evictions: int) -> list[int]:
        """Adds filled slots, and evicts one sample before each of the last ones; returns the evicted slots.

        Args:
            rows: The slots.
            evictions: Number of samples to evict, at most that of the slots.
        """
        evicted = []
        for number, row in enumerate(rows, evictions - len(rows)):
            if number >= 0:
                evicted.append(self._evict())
            self._insert(row)
        return evicted

    @abstractmethod
    def _select(self, n: int) -> Selection:
        """Selects at most n samples for a draw."""

    @abstractmethod
    def _finish(self, row: int) -> bool:
        """Notes that a selected row was drawn; returns whether its draw removes it.

        Of a segment, all windows have been drawn.
        """

    @abstractmethod
    def _all(self) -> list[int]:
        """Slots of all stored samples."""

    @abstractmethod
    def _unseen_slots(self) -> list[int]:
        """Slots of all samples that have never been drawn."""

    def _columns(self, slots: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
        """Values of samples that the policy keeps beside the store, `(n,)` each."""
        return {}

    def _restore_columns(
        self, slots: NDArray[np.intp], columns: Mapping[str, NDArray[Any]]
    ) -> None:
        """Restores what the policy keeps beside the store, after the samples are inserted.

        Args:
            slots: Slots of the samples, `(n,)`.
            columns: Columns of `rows`, `(n,)` each: those of `_columns`, and `place` and `seen`.
        """
        return

    @abstractmethod
    def _clear(self) -> list[int]:
        """Removes all samples and returns their slots."""

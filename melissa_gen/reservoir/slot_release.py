"""Releases slots whose rows are not being read."""

from collections.abc import Sequence

from melissa_gen.reservoir.slot_store import SlotStore

__all__ = ["SlotRelease"]


class SlotRelease:
    """Releases the slots of a policy, which calls it with its lock held.

    A slot that is read without the lock is released when this has ended.

    Args:
        store: The slots.

    Attributes:
        copied: Slots that a draw copies.
        taken: Slots that are read after `Policy.take_arrivals`.
    """

    def __init__(self, store: SlotStore) -> None:
        self._store = store
        self.copied: frozenset[int] = frozenset()
        self.taken: set[int] = set()
        self._late: list[int] = []

    def free(self, slots: Sequence[int]) -> None:
        """Releases slots, those that are being read at the next `free_late`."""
        if self.copied or self.taken:
            self._late += slots
            self.free_late()
        else:
            self._store.release_all(slots)

    def free_late(self) -> None:
        """Releases the slots that were read when they were freed, unless they are still read."""
        late, self._late = self._late, []
        free: list[int] = []
        for slot in late:
            read = slot in self.copied or slot in self.taken
            (self._late if read else free).append(slot)
        self._store.release_all(free)

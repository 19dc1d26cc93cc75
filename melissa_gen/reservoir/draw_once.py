"""FIFO and FIRO policies: each sample is drawn once, in order of arrival or at random."""

from collections import deque

import numpy as np

from melissa_gen.errors import StudyError
from melissa_gen.reservoir.base_policy import Policy
from melissa_gen.reservoir.samples import Selection
from melissa_gen.reservoir.slot_store import SlotStore

__all__ = ["FIFO", "FIRO"]


class _DrawOnce(Policy):
    """Policy whose draws remove the samples: no stored sample was ever drawn, none can be evicted."""

    def _unseen(self) -> int:
        return self._size()

    def _unseen_slots(self) -> list[int]:
        return self._all()

    def _evictable(self) -> int:
        return 0

    def _evict(self) -> int:
        message = "a sample that was never drawn can't be evicted"
        raise AssertionError(message)

    def _finish(self, row: int) -> bool:
        # `_select` has removed it already.
        return True

    def _needed(self, n: int) -> int:
        if n > self.capacity:
            message = (
                f"reservoir.capacity is {self.capacity}, less than a batch of {n}: "
                "with FIFO or FIRO it must hold at least training.batch_size samples"
            )
            raise StudyError(message)
        # Limited to the capacity: otherwise puts and draws would wait for each other forever.
        return min(self.watermark + n, self.capacity)


class FIFO(_DrawOnce):
    """First in, first out: each sample is drawn once, in the order of arrival.

    This is the simplest form of online training. Samples that arrive together end up in the same
    batch, so batches are as correlated as the arrivals. The watermark is ignored.

    Example:
        >>> store = SlotStore({"u": ((4,), "f4")}, slots=9, n_inputs=2)
        >>> memory = FIFO(store, capacity=8)
    """

    def __init__(
        self,
        store: SlotStore,
        capacity: int,
        watermark: int = 0,
        seed: int | np.random.Generator = 0,
    ) -> None:
        super().__init__(store, capacity, 0, seed)
        self._queue: deque[int] = deque()

    def _size(self) -> int:
        return len(self._queue)

    def _insert(self, slot: int) -> None:
        self._queue.append(slot)

    def _select(self, n: int) -> Selection:
        slots = [self._queue.popleft() for _ in range(min(n, len(self._queue)))]
        return Selection(slots, [True] * len(slots), np.ones(len(slots)))

    def _all(self) -> list[int]:
        return list(self._queue)

    def _clear(self) -> list[int]:
        slots = list(self._queue)
        self._queue.clear()
        return slots


class FIRO(_DrawOnce):
    """First in, random out: each sample is drawn once, at random.

    While reception is open, a draw leaves at least `watermark` samples in memory, so that the
    selection remains random.
    """

    def __init__(
        self,
        store: SlotStore,
        capacity: int,
        watermark: int = 0,
        seed: int | np.random.Generator = 0,
    ) -> None:
        super().__init__(store, capacity, watermark, seed)
        self._slots: list[int] = []

    def _size(self) -> int:
        return len(self._slots)

    def _insert(self, slot: int) -> None:
        self._slots.append(slot)

    def _select(self, n: int) -> Selection:
        size = len(self._slots)
        chosen = self._random.choice(size, min(n, size), replace=False).tolist()
        slots = [self._slots[place] for place in chosen]
        for place in sorted(chosen, reverse=True):
            last = self._slots.pop()
            if place < len(self._slots):
                self._slots[place] = last
        return Selection(slots, [True] * len(slots), np.ones(len(slots)))

    def _all(self) -> list[int]:
        return list(self._slots)

    def _clear(self) -> list[int]:
        slots, self._slots = self._slots, []
        return slots

"""The Reservoir policy: draws with repetition; only samples that have been drawn are evicted."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melissa_gen.reservoir.base_policy import Policy
from melissa_gen.reservoir.samples import Draw, Selection
from melissa_gen.reservoir.slot_store import SlotStore

__all__ = ["Reservoir"]

_SINGLE_DRAWS = 8
"""Number of random numbers from which on one call for all is faster than a call for each."""
_BATCHES_OF_OFFERS = 8
"""Batches that must be stored for an offer, which keeps the samples of one: the others leave room for new samples."""


class Reservoir(Policy):
    """Draws uniformly with repetition, and evicts a random sample that has been drawn before.

    Training can therefore run faster than the solvers, and batches mix old and new samples. No
    batch is drawn before the watermark is reached. After the end of reception, draws are without
    replacement and remove the samples, so that training ends.

    With `unseen_first`, a batch first takes samples that were never drawn. The number of draws is then close to that
    of samples before any is drawn again, and unseen samples do not accumulate where draws are limited.

    Reference: Meyer et al., "High throughput training of deep surrogates from large ensemble
    runs", SC'23 (training reservoir).

    Example:
        >>> store = SlotStore({"u": ((4,), "f4")}, slots=110, n_inputs=2)
        >>> memory = Reservoir(store, capacity=100, watermark=30, seed=1)
        >>> slot = store.acquire()
        >>> memory.put(slot, Sample(simulation=0, step=0, inputs=[0.5, 0.0]))
        True
    """

    forms_windows = True

    def __init__(
        self,
        store: SlotStore,
        capacity: int,
        watermark: int = 0,
        seed: int | np.random.Generator = 0,
        *,
        unseen_first: bool = False,
    ) -> None:
        super().__init__(store, capacity, watermark, seed)
        self._unseen_first = unseen_first
        # `_order` holds the slots of samples that have been drawn first, then those of the others.
        # `_place` is its inverse: slot to index in `_order`.
        self._order: list[int] = []
        self._place = [-1] * store.slots
        self._seen = 0
        # The selection of `offer`, its slots, and how many of these hold samples that have been drawn.
        self._offered: Selection | None = None
        self._kept: frozenset[int] = frozenset()
        self._kept_seen = 0

    def offer(self, n: int) -> Draw | None:
        """Selects n samples for the next draw in advance.

        They are not evicted before that draw, and count as drawn from then on only. A draw of another number of
        samples gives up the offer.

        Returns:
            The rows of the next draw of n samples, which the caller may read until then. None if reception is closed,
            windows are drawn, fewer than eight batches are stored, or, with `unseen_first`, samples that have been
            drawn would be among the n.
        """
        with self._condition:
            few = self._size() < _BATCHES_OF_OFFERS * n or not self._ready(n)
            repeats = self._unseen_first and self._unseen() < n
            if self._closed or self._segments is not None or few or repeats:
                return None
            chosen = self._select(n)
            self._offered, self._kept = chosen, frozenset(chosen.slots)
            self._kept_seen = sum(self._place[slot] < self._seen for slot in self._kept)
            return Draw(chosen, None, [])

    def _size(self) -> int:
        return len(self._order)

    def _unseen(self) -> int:
        return len(self._order) - self._seen

    def _needed(self, n: int) -> int:
        return self.watermark

    def _insert(self, slot: int) -> None:
        self._place[slot] = len(self._order)
        self._order.append(slot)

    def _evictable(self) -> int:
        return self._seen - self._kept_seen

    def _evict(self) -> int:
        place = int(self._random.integers(self._seen))
        while self._order[place] in self._kept:
            place = int(self._random.integers(self._seen))
        return self._evict_place(place)

    def _evict_place(self, place: int) -> int:
        slot = self._order[place]
        self._remove(slot)
        return slot

    def _exchange(self, rows: Sequence[int], evictions: int) -> list[int]:
        if evictions < _SINGLE_DRAWS:
            return super()._exchange(rows, evictions)
        # The same numbers as those of single evictions, unless one finds a sample of the offer.
        places = self._random.integers(np.arange(self._seen, self._seen - evictions, -1)).tolist()
        kept = len(rows) - evictions
        super()._exchange(rows[:kept], 0)
        evicted = []
        for row, place in zip(rows[kept:], places, strict=True):
            offered = self._order[place] in self._kept
            evicted.append(self._evict() if offered else self._evict_place(place))
            self._insert(row)
        return evicted

    def _select(self, n: int) -> Selection:
        offered = self._withdraw_offer()
        if offered is not None and len(offered.slots) == n:
            return offered
        if self._closed:
            places = self._without_repetition(n, 0)
            preferred = len(places)
        else:
            places = self._first_draws(n)
            preferred = len(places)
            places += self._repeatable_draws(n - preferred)
        slots = [self._order[place] for place in places]
        weights = self._weights(slots, preferred)
        unseen = [place >= self._seen for place in places]
        return Selection(slots, unseen, weights)

    def _withdraw_offer(self) -> Selection | None:
        """Ends the offer, whose samples can be evicted from now on; returns it."""
        offered, self._offered = self._offered, None
        self._kept, self._kept_seen = frozenset(), 0
        return offered

    def _first_draws(self, n: int) -> list[int]:
        """Places of at most n samples that are drawn because they were never drawn before."""
        return self._without_repetition(n, self._seen) if self._unseen_first else []

    def _without_repetition(self, n: int, begin: int) -> list[int]:
        """Places of at most n items among the samples from a place on; a segment has an item for each window left."""
        if self._segments is None:
            size = len(self._order) - begin
            found: list[int] = (begin + self._random.choice(size, min(n, size), False)).tolist()
            return found
        tickets = self._segments.tickets(self._order[begin:])
        chosen = self._random.choice(len(tickets), min(n, len(tickets)), replace=False)
        return [self._place[tickets[number]] for number in chosen.tolist()]

    def _finish(self, row: int) -> bool:
        if self._closed:
            self._remove(row)
        else:
            self._mark_seen(row)
        return self._closed

    def _repeatable_draws(self, n: int) -> list[int]:
        """Places of n samples that are drawn from all samples, with repetition."""
        found: list[int] = self._random.integers(len(self._order), size=n).tolist()
        if self._segments is None:
            return found
        # A segment with fewer windows is drawn less often, so that all windows are equally likely.
        most = self._segments.most_windows
        kept = [
            p for p in found if self._random.random() * most < self._segments.size(self._order[p])
        ]
        return kept + (self._repeatable_draws(n - len(kept)) if len(kept) < n else [])

    def _weights(self, slots: list[int], preferred: int) -> NDArray[np.float64]:
        """Importance weights of selected samples (see `Batch`).

        Args:
            slots: Slots of the samples, which are still stored.
            preferred: Number of leading samples that were not drawn by `_repeatable_draws`.
        """
        return np.ones(len(slots))

    def _all(self) -> list[int]:
        return list(self._order)

    def _unseen_slots(self) -> list[int]:
        return self._order[self._seen :]

    def _clear(self) -> list[int]:
        self._withdraw_offer()
        slots, self._order, self._seen = self._order, [], 0
        return slots

    def _restore_columns(
        self, slots: NDArray[np.intp], columns: Mapping[str, NDArray[Any]]
    ) -> None:
        # In the order of the samples, so that equal seeds give equal draws.
        order = np.argsort(columns["place"], kind="stable")
        for slot in slots[order][columns["seen"][order]].tolist():
            self._mark_seen(slot)

    def _mark_seen(self, slot: int) -> None:
        if self._place[slot] >= self._seen:
            self._swap(self._place[slot], self._seen)
            self._seen += 1

    def _remove(self, slot: int) -> None:
        order, places = self._order, self._place
        place = places[slot]
        if place < self._seen:
            self._seen -= 1
            moved = order[self._seen]
            order[place], places[moved] = moved, place
            place = self._seen
        last = order.pop()
        if place < len(order):
            order[place], places[last] = last, place

    def _swap(self, a: int, b: int) -> None:
        order, place = self._order, self._place
        order[a], order[b] = order[b], order[a]
        place[order[a]], place[order[b]] = a, b

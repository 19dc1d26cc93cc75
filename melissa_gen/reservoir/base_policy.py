"""Base class of the reservoir policies: locking, counters, pacing, and copying rows into a batch."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melissa_gen.errors import RunError, StudyError
from melissa_gen.reservoir.samples import Batch, Sample, Selection, StoredRows
from melissa_gen.reservoir.slot_store import SlotStore

__all__ = ["LOST_WITH_SERVER", "Policy"]

LOST_WITH_SERVER = "lost with an earlier server"
"""Reason for withdrawing the samples that were in memory when a server ended before its study."""


class Policy(ABC):
    """Decides which stored samples can be drawn and which are evicted.

    One ingest thread calls `put`, one training thread calls `draw`. A sample is never evicted
    before its first draw: if no stored sample can be evicted, `put` returns False, and the caller
    withholds credit from the clients until a later call returns True.

    Args:
        store: The slots. It must have more slots than `capacity`, because at least one slot must
            remain free for receiving.
        capacity: Maximum number of samples stored at once.
        watermark: Number of samples that must be stored before the first draw.
        seed: Seed of the random generator, or the generator itself.

    Raises:
        StudyError: `capacity` or `watermark` is out of range.
    """

    def __init__(
        self,
        store: SlotStore,
        capacity: int,
        watermark: int = 0,
        seed: int | np.random.Generator = 0,
    ) -> None:
        if not 1 <= capacity < store.slots:
            message = (
                f"reservoir.capacity is {capacity}, but the store has {store.slots} rows: "
                f"legal are 1 to {store.slots - 1}, because one row must remain free for receiving"
            )
            raise StudyError(message)
        if not 0 <= watermark <= capacity:
            message = f"reservoir.watermark is {watermark}: legal are 0 to the capacity, {capacity}"
            raise StudyError(message)
        self.store = store
        self.capacity = capacity
        self.watermark = watermark
        self._random = np.random.default_rng(seed)
        self._condition = threading.Condition()
        self._closed = False
        self._blocked = False
        self._allowed: int | None = None
        self._refilled = False
        self._stored = 0
        self._trained = 0
        self._draws = 0
        self._samples_drawn = 0
        self._withdrawn: dict[str, int] = {}
        self._arrivals: dict[int, None] = {}  # in order
        # Slots that a draw is copying without holding the lock. If one of them is evicted
        # meanwhile, it is released only after the copy.
        self._copied: frozenset[int] = frozenset()
        self._freed_late: list[int] = []

    # Methods that a policy implements. They are called with the lock held.

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
    def _can_evict(self) -> bool:
        """Whether any stored sample can be evicted."""

    @abstractmethod
    def _evict(self) -> int:
        """Evicts one sample and returns its slot."""

    @abstractmethod
    def _select(self, n: int) -> Selection:
        """Selects at most n samples for a draw."""

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

    # Methods for the ingest thread.

    def put(self, slot: int, sample: Sample) -> bool:
        """Adds a completed sample to the stored samples.

        Args:
            slot: An acquired slot whose fields are all written.
            sample: Metadata of the sample.

        Returns:
            True if the sample was accepted. False if there is no room, or if the limit set by
            `allow_puts` is reached: the caller keeps the slot, tries again later, and grants no
            credit until then.

        Raises:
            RunError: Reception is already closed.
            ValueError: The slot was not acquired, or the input vector has the wrong length.
        """
        with self._condition:
            if self._closed:
                message = f"a sample of simulation {sample.simulation} came after reception closed"
                raise RunError(message)
            self.store.check(slot)
            if not self._room():
                self._blocked = True
                return False
            self.store.inputs[slot] = sample.inputs
            self.store.simulations[slot] = sample.simulation
            self.store.steps[slot] = sample.step
            self.store.weights[slot] = sample.weight
            if self._size() >= self.capacity:
                self._free(self._evict())
            self._insert(slot)
            self._arrivals[slot] = None
            self._stored += 1
            self._blocked = False
            self._condition.notify_all()
            return True

    def allow_puts(self, total: int | None) -> None:
        """Limits the total number of samples that `put` accepts; None removes the limit."""
        with self._condition:
            self._allowed = total
            self._condition.notify_all()

    def close(self) -> None:
        """Ends reception. Remaining samples are drawn without waiting and removed when drawn."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def withdraw_all(self, reason: str) -> int:
        """Removes all samples, e.g. when the run stops early.

        Args:
            reason: Reason under which samples that were never drawn are counted.

        Returns:
            Number of removed samples that were never drawn.
        """
        with self._condition:
            unseen = self._unseen()
            self._arrivals = {}
            for slot in self._clear():
                self._free(slot)
            if unseen:
                self._withdrawn[reason] = self._withdrawn.get(reason, 0) + unseen
            self._condition.notify_all()
            return unseen

    # Methods for the training thread.

    def draw(
        self, n: int, out: Mapping[str, NDArray[Any]], *, below_watermark: bool = False
    ) -> Batch | None:
        """Copies a batch of samples into the caller's arrays.

        Args:
            n: Number of samples.
            out: Field name to a C-contiguous array `(m, *shape)` with m >= n and the field's
                dtype. A field that is not named is not copied.
            below_watermark: Draw even if fewer samples are stored than the watermark requires.
                Used when the other ranks of a collective training step would have to wait.

        Returns:
            The batch, or None if no batch can be drawn now. It has fewer than n samples only
            after the end of reception or below the watermark.

        Raises:
            StudyError: The capacity of a policy that removes drawn samples is less than n.
            ValueError: An array in `out` is too short or has another dtype.
        """
        self._check_out(n, out)
        with self._condition:
            if not (self._ready(n) or (below_watermark and self._size() > 0)):
                return None
            slots, unseen, removed, weights = self._select(n)
            first = len({slot for slot, new in zip(slots, unseen, strict=True) if new})
            self._trained += first
            self._draws += 1
            self._samples_drawn += len(slots)
            self._copied = frozenset(slots)
            if not removed:
                # Samples drawn for the first time can be evicted now: ingest does not wait for the copy.
                self._condition.notify_all()
        try:
            return self._copy(slots, unseen, weights, out)
        finally:
            with self._condition:
                self._copied = frozenset()
                for slot in [*self._freed_late, *(slots if removed else ())]:
                    self.store.release(slot)
                self._freed_late.clear()
                self._condition.notify_all()

    def update_losses(self, batch: Batch, losses: NDArray[np.float64]) -> None:
        """Records the losses of a batch. Policies that do not depend on the loss ignore them.

        Args:
            batch: A batch returned by `draw`.
            losses: Loss of each sample, `(count,)`, non-negative.
        """

    def rescale_losses(self, factor: float) -> None:
        """Converts the recorded losses to another unit. Policies that do not depend on the loss have none.

        Args:
            factor: New value of a loss of 1, positive.
        """

    def take_arrivals(self) -> list[int]:
        """Returns the slots filled since the last call. Their samples stay unchanged until the next draw."""
        with self._condition:
            taken, self._arrivals = list(self._arrivals), {}
            return taken

    def ready(self, n: int) -> bool:
        """Whether `draw(n)` would return a batch now."""
        with self._condition:
            return self._ready(n)

    def wait_ready(self, n: int, timeout: float | None = None) -> bool:
        """Waits until `draw(n)` would return a batch or reception is closed.

        Args:
            n: Number of samples.
            timeout: Maximum waiting time in seconds; None waits without limit.

        Returns:
            Whether a batch can be drawn.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._ready(n) or self._closed, timeout)
            return self._ready(n)

    def wait_room(self, timeout: float | None = None) -> bool:
        """Waits until a put would succeed or reception is closed.

        Args:
            timeout: Maximum waiting time in seconds; None waits without limit.

        Returns:
            Whether a put would succeed.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._room() or self._closed, timeout)
            return self._room() and not self._closed

    # Methods for any thread.

    def __len__(self) -> int:
        """Number of samples stored now."""
        with self._condition:
            return self._size()

    @property
    def closed(self) -> bool:
        """Whether reception is closed."""
        return self._closed

    @property
    def drained(self) -> bool:
        """Whether reception is closed and no sample is left to draw."""
        with self._condition:
            return self._closed and self._size() == 0

    @property
    def blocked(self) -> bool:
        """Whether the most recent put was refused and there is still no room."""
        with self._condition:
            return self._blocked and not self._room()

    @property
    def has_room(self) -> bool:
        """Whether a put would succeed now."""
        with self._condition:
            return self._room()

    def unseen(self) -> NDArray[np.int64]:
        """Simulation number and time step of each stored sample that has never been drawn, `(n, 2)`."""
        with self._condition:
            slots = np.array(self._unseen_slots(), np.intp)
            return np.stack([self.store.simulations[slots], self.store.steps[slots]], axis=1)

    def slots(self) -> list[int]:
        """Slots of the stored samples. Samples that have been drawn may be evicted at any time."""
        with self._condition:
            return self._all()

    def counters(self) -> dict[str, Any]:
        """Returns a consistent snapshot of the counters of this rank.

        Returns:
            `stored` (samples accepted in total), `trained` (samples drawn at least once),
            `withdrawn` (reason to number of samples), `draws` (number of batches),
            `samples_drawn` (with repetitions), `seen` and `unseen` (samples stored now). The
            invariant is stored = trained + unseen + sum of withdrawn.
        """
        with self._condition:
            unseen = self._unseen()
            return {
                "stored": self._stored,
                "trained": self._trained,
                "withdrawn": dict(self._withdrawn),
                "draws": self._draws,
                "samples_drawn": self._samples_drawn,
                "seen": self._size() - unseen,
                "unseen": unseen,
            }

    def state(self) -> dict[str, Any]:
        """Checkpoint state as JSON types: counters and random state, without the samples (see `rows`)."""
        with self._condition:
            return {"counters": self.counters(), "random": self._random.bit_generator.state}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores the counters and random state of an earlier server.

        The samples in its memory are lost, unless `refill` adds them again. Those that were never
        drawn are counted as withdrawn, so that the invariant of `counters` holds.

        Args:
            state: Result of `state()`.

        Raises:
            RunError: A sample has already been put.
        """
        with self._condition:
            if self._stored:
                message = "a reservoir can only be restored before the first sample"
                raise RunError(message)
            counters = state["counters"]
            self._stored = int(counters["stored"])
            self._trained = int(counters["trained"])
            self._draws = int(counters["draws"])
            self._samples_drawn = int(counters["samples_drawn"])
            self._withdrawn = {str(k): int(v) for k, v in counters["withdrawn"].items()}
            if lost := int(counters["unseen"]):
                self._withdrawn[LOST_WITH_SERVER] = self._withdrawn.get(LOST_WITH_SERVER, 0) + lost
            # A rank that did not exist before keeps its own generator.
            if state["random"] is not None:
                self._random.bit_generator.state = state["random"]

    @property
    def refilled(self) -> bool:
        """Whether the samples of an earlier server were restored."""
        return self._refilled

    def rows(self) -> StoredRows:
        """Returns the slots of the stored samples, and what else is needed to restore them with `refill`."""
        with self._condition:
            store, order = self.store, np.array(self._all(), np.intp)
            place = np.argsort(order)
            slots = order[place]
            seen = np.ones(store.slots, bool)
            seen[np.array(self._unseen_slots(), np.intp)] = False
            columns = {
                "place": place,
                "seen": seen[slots],
                "simulation": store.simulations[slots],
                "step": store.steps[slots],
                "weight": store.weights[slots],
            }
            return StoredRows(slots, columns | self._columns(slots))

    def refill(self, rows: StoredRows) -> None:
        """Adds the samples of an earlier server after `restore`, which counted them as lost.

        Args:
            rows: At most `capacity` rows. Inputs and fields of their slots are written already.
        """
        columns = rows.columns
        with self._condition:
            store, slots = self.store, rows.slots
            store.simulations[slots], store.steps[slots] = columns["simulation"], columns["step"]
            store.weights[slots] = columns["weight"]
            for slot in slots[np.argsort(columns["place"], kind="stable")].tolist():
                self._insert(slot)
            self._restore_columns(slots, columns)
            found = int(np.count_nonzero(~columns["seen"]))
            self._withdrawn[LOST_WITH_SERVER] = self._withdrawn.get(LOST_WITH_SERVER, 0) - found
            if not self._withdrawn[LOST_WITH_SERVER]:
                del self._withdrawn[LOST_WITH_SERVER]
            self._refilled = True
            self._condition.notify_all()

    # Private methods that require the lock.

    def _room(self) -> bool:
        if self._allowed is not None and self._stored >= self._allowed:
            return False
        return self._size() < self.capacity or self._can_evict()

    def _ready(self, n: int) -> bool:
        size = self._size()
        return size >= (1 if self._closed else max(1, self._needed(n)))

    def _free(self, slot: int) -> None:
        if slot in self._copied:
            self._freed_late.append(slot)
        else:
            self.store.release(slot)

    # Private methods that do not require the lock.

    def _copy(
        self,
        slots: Sequence[int],
        unseen: Sequence[bool],
        weights: NDArray[np.float64],
        out: Mapping[str, NDArray[Any]],
    ) -> Batch:
        """Copies the rows of the selected slots into `out`."""
        index = np.asarray(slots, np.intp)
        count = len(index)
        fields = {name: array[:count] for name, array in out.items()}
        for name, array in fields.items():
            # Mode "clip" writes directly into `out`; the default mode allocates a buffer.
            np.take(self.store.arrays[name], index, axis=0, out=array, mode="clip")
        return Batch(
            count=count,
            fields=fields,
            inputs=self.store.inputs[index],
            simulations=self.store.simulations[index],
            steps=self.store.steps[index],
            first_time=np.asarray(unseen, np.bool_),
            slots=index,
            weights=weights,
            simulation_weights=self.store.weights[index],
        )

    def _check_out(self, n: int, out: Mapping[str, NDArray[Any]]) -> None:
        if n < 1:
            message = f"a batch must have at least one sample, not {n}"
            raise ValueError(message)
        for name, array in out.items():
            rows = self.store.arrays[name]
            if array.dtype != rows.dtype or array.shape[1:] != rows.shape[1:] or len(array) < n:
                message = (
                    f"a batch of {n} of field '{name}' needs {(n, *rows.shape[1:])} {rows.dtype}, "
                    f"not {array.shape} {array.dtype}"
                )
                raise ValueError(message)

"""What every policy shares: the lock, the accounting, pacing, and copying rows into a batch."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from melissa_gen.errors import RunError, StudyError
from melissa_gen.reservoir.slot_store import SlotStore

__all__ = ["LOST_WITH_SERVER", "Batch", "Policy", "Sample"]

LOST_WITH_SERVER = "lost with an earlier server"
"""Why samples were withdrawn that were in memory when a server ended before the study did."""


class Sample(NamedTuple):
    """What is known of a completed row beside its fields.

    Attributes:
        simulation: Number of the simulation.
        step: Time step.
        inputs: Parameters and time (n_inputs,), as the surrogate is to see them.
    """

    simulation: int
    step: int
    inputs: ArrayLike


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples drawn together; all arrays are the caller's own.

    Attributes:
        count: Number of samples, at most what was asked for.
        fields: Field name to (count, *shape), the first rows of the caller's `out`.
        inputs: Parameters and time (count, n_inputs).
        simulations: Simulation of each sample (count,).
        steps: Time step of each sample (count,).
        first_time: Whether the sample had never been drawn before this batch (count,).
        slots: Row of each sample when it was drawn (count,); by now it may hold another one.
        weights: How much more often uniform eviction and draws would have given the sample (count,).
    """

    count: int
    fields: dict[str, NDArray[Any]]
    inputs: NDArray[Any]
    simulations: NDArray[np.int64]
    steps: NDArray[np.int64]
    first_time: NDArray[np.bool_]
    slots: NDArray[np.intp]
    weights: NDArray[np.float64]


class Policy(ABC):
    """Which stored samples may be drawn, and which must make room.

    One ingest thread puts, one training thread draws. Nothing is thrown away unseen: when every
    stored sample still waits for its first draw, `put` says False and the caller withholds credit
    until a later call says True.

    Args:
        store: The rows; more of them than `capacity`, else nothing can be received when full.
        capacity: Most samples stored at once.
        watermark: Samples that must be there before the first draw.
        seed: Of the random generator (or the generator itself).
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
                f"legal are 1 to {store.slots - 1}, so that one row is left to receive into"
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
        self._stored = 0
        self._trained = 0
        self._draws = 0
        self._samples_drawn = 0
        self._withdrawn: dict[str, int] = {}
        # Rows that a draw copies outside of the lock; if evicted meanwhile, they are freed after.
        self._copied: frozenset[int] = frozenset()
        self._freed_late: list[int] = []

    # What a policy decides; all are called with the lock held.

    @abstractmethod
    def _size(self) -> int:
        """Number of samples stored."""

    @abstractmethod
    def _unseen(self) -> int:
        """Number of stored samples that were never drawn."""

    @abstractmethod
    def _needed(self, n: int) -> int:
        """Number of samples that must be stored for a draw of n, before the end of reception."""

    @abstractmethod
    def _insert(self, slot: int) -> None:
        """Adds a slot."""

    @abstractmethod
    def _can_evict(self) -> bool:
        """Whether a stored sample may go."""

    @abstractmethod
    def _evict(self) -> int:
        """Removes and returns one slot that may go."""

    @abstractmethod
    def _select(self, n: int) -> tuple[list[int], list[bool], bool]:
        """Slots of a draw of at most n, whether each was unseen, and whether they are removed."""

    def _weights(self, slots: Sequence[int], closed: bool) -> NDArray[np.float64]:
        """Weights of a draw just selected, see `Batch`; all alike unless a policy prefers some."""
        return np.ones(len(slots))

    @abstractmethod
    def _all(self) -> list[int]:
        """Every slot."""

    @abstractmethod
    def _unseen_slots(self) -> list[int]:
        """Every slot whose sample was never drawn."""

    @abstractmethod
    def _clear(self) -> list[int]:
        """Removes and returns every slot."""

    # Ingest side.

    def put(self, slot: int, sample: Sample) -> bool:
        """Takes over a completed row.

        Args:
            slot: An acquired slot whose fields are all written.
            sample: What the row is.

        Returns:
            False when there is no room now, or when pacing withholds it: the row stays the
            caller's, who tries again later and grants no more credit until then.

        Raises:
            RunError: Reception was already closed.
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
            if self._size() >= self.capacity:
                self._free(self._evict())
            self._insert(slot)
            self._stored += 1
            self._blocked = False
            self._condition.notify_all()
            return True

    def allow_puts(self, total: int | None) -> None:
        """Withholds puts beyond this number of accepted samples; None lifts the limit."""
        with self._condition:
            self._allowed = total
            self._condition.notify_all()

    def close(self) -> None:
        """Says that nothing more will be put: the rest is drawn without waiting, and removed."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def withdraw_all(self, reason: str) -> int:
        """Empties the memory for a stop; samples that were never drawn are counted under `reason`.

        Returns:
            Number of samples withdrawn unseen.
        """
        with self._condition:
            unseen = self._unseen()
            for slot in self._clear():
                self._free(slot)
            if unseen:
                self._withdrawn[reason] = self._withdrawn.get(reason, 0) + unseen
            self._condition.notify_all()
            return unseen

    # Training side.

    def draw(
        self, n: int, out: Mapping[str, NDArray[Any]], *, below_watermark: bool = False
    ) -> Batch | None:
        """Copies a batch of samples into the caller's arrays.

        Args:
            n: Samples wanted.
            out: Field name to an array (at least n, *shape) of the field's dtype, C-contiguous;
                a field that is not named is not copied.
            below_watermark: Draw from whatever there is, even less than the watermark asks for:
                for a rank that would otherwise keep the other ranks of a lockstep waiting.

        Returns:
            The batch, with fewer than n samples only after the end of reception or below the
            watermark; None if nothing can be drawn now.

        Raises:
            StudyError: A policy that removes what it draws can never hold n samples.
            ValueError: An array in `out` is too short or has another dtype.
        """
        self._check_out(n, out)
        with self._condition:
            if not (self._ready(n) or (below_watermark and self._size() > 0)):
                return None
            slots, unseen, removed = self._select(n)
            weights = self._weights(slots, removed)
            first = len({slot for slot, new in zip(slots, unseen, strict=True) if new})
            self._trained += first
            self._draws += 1
            self._samples_drawn += len(slots)
            self._copied = frozenset(slots)
            if not removed:
                # Newly seen samples can be evicted from here on: ingest need not wait for the copy.
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

    def learned(self, batch: Batch, losses: NDArray[np.float64]) -> None:  # noqa: B027
        """Takes in how hard the samples of a batch were; most policies do not mind.

        Args:
            batch: What `draw` gave.
            losses: Loss of each sample (count,), at least 0.
        """

    def ready(self, n: int) -> bool:
        """Whether `draw(n)` would give a batch now."""
        with self._condition:
            return self._ready(n)

    def wait_ready(self, n: int, timeout: float | None = None) -> bool:
        """Waits until `draw(n)` would give a batch, or until nothing will ever come.

        Args:
            n: Samples wanted.
            timeout: Seconds to wait at most; None waits without end.

        Returns:
            Whether a batch can be drawn.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._ready(n) or self._closed, timeout)
            return self._ready(n)

    def wait_room(self, timeout: float | None = None) -> bool:
        """Waits until a put would succeed (or reception closes); says whether it would."""
        with self._condition:
            self._condition.wait_for(lambda: self._room() or self._closed, timeout)
            return self._room() and not self._closed

    # What can be asked.

    def __len__(self) -> int:
        """Number of samples stored now."""
        with self._condition:
            return self._size()

    @property
    def closed(self) -> bool:
        """Whether reception ended."""
        return self._closed

    @property
    def drained(self) -> bool:
        """Whether reception ended and nothing is left to draw."""
        with self._condition:
            return self._closed and self._size() == 0

    @property
    def blocked(self) -> bool:
        """Whether a put was refused since the last one that succeeded."""
        return self._blocked

    @property
    def has_room(self) -> bool:
        """Whether a put would succeed now."""
        with self._condition:
            return self._room()

    def unseen(self) -> list[tuple[int, int]]:
        """Simulation and time step of each stored sample that was never drawn."""
        with self._condition:
            slots = self._unseen_slots()
            pairs = zip(self.store.simulations[slots], self.store.steps[slots], strict=True)
            return [(int(simulation), int(step)) for simulation, step in pairs]

    def slots(self) -> list[int]:
        """Slots of the samples stored now; only those never drawn are safe from eviction."""
        with self._condition:
            return self._all()

    def counters(self) -> dict[str, Any]:
        """Accounting of this rank, consistent at one instant.

        Returns:
            `stored` (accepted in total), `trained` (drawn at least once), `withdrawn` (reason to
            number), `draws` (batches), `samples_drawn` (with repetitions), `seen` and `unseen`
            (in memory now). Always stored = trained + unseen + sum of withdrawn.
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
        """What a checkpoint keeps, as JSON types: counters and random state, not the samples."""
        with self._condition:
            return {"counters": self.counters(), "random": self._random.bit_generator.state}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state()` of an earlier server, whose stored samples are gone.

        Those that it had not trained on are counted as withdrawn, so that the accounts still add up.

        Raises:
            RunError: Samples were already put.
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
            self._random.bit_generator.state = state["random"]

    # With the lock held.

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

    # Without the lock.

    def _copy(
        self,
        slots: Sequence[int],
        unseen: Sequence[bool],
        weights: NDArray[np.float64],
        out: Mapping[str, NDArray[Any]],
    ) -> Batch:
        """Gathers rows; mode "clip" lets numpy write into `out` without a buffer of its own."""
        index = np.asarray(slots, np.intp)
        count = len(index)
        fields = {name: array[:count] for name, array in out.items()}
        for name, array in fields.items():
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
        )

    def _check_out(self, n: int, out: Mapping[str, NDArray[Any]]) -> None:
        if n < 1:
            message = f"a batch has at least one sample, not {n}"
            raise ValueError(message)
        for name, array in out.items():
            rows = self.store.arrays[name]
            if array.dtype != rows.dtype or array.shape[1:] != rows.shape[1:] or len(array) < n:
                message = (
                    f"a batch of {n} of field '{name}' needs {(n, *rows.shape[1:])} {rows.dtype}, "
                    f"not {array.shape} {array.dtype}"
                )
                raise ValueError(message)

"""Base class of the reservoir policies: locking, counters, pacing, and copying rows into a batch."""

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melissa_gen.errors import RunError, StudyError
from melissa_gen.reservoir.batches import check_out, copied
from melissa_gen.reservoir.policy_rules import PolicyRules
from melissa_gen.reservoir.samples import (
    Batch,
    Draw,
    Sample,
    SampleBlock,
    Selection,
    Stock,
    StoredRows,
)
from melissa_gen.reservoir.segments import IN_NO_WINDOW, NOT_DRAWN, Segments, WindowShape
from melissa_gen.reservoir.slot_release import SlotRelease
from melissa_gen.reservoir.slot_store import SlotStore
from melissa_gen.reservoir.stored_rows import stored_rows
from melissa_gen.reservoir.totals import LOST_WITH_SERVER, Totals

__all__ = ["Policy"]


class Policy(PolicyRules):
    """Decides which stored samples can be drawn and which are evicted.

    One ingest thread calls `put` or `put_block`, one training thread calls `draw`. A sample is
    never evicted before its first draw: if no stored sample can be evicted, `put` returns False,
    and the caller withholds credit from the clients until a later call returns True.

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
        store.check_capacity(capacity, watermark)
        self.store = store
        self.capacity = capacity
        self.watermark = watermark
        self.restorable = capacity
        # Items that can be drawn for each sample: fewer than 1 if they are windows of several time steps.
        self.items_per_sample = 1.0
        # Rows that are evicted at once: single time steps, or segments of several.
        self._limit = capacity
        self._segments: Segments | None = None
        self.window_steps: int | None = None
        self._random = np.random.default_rng(seed)
        self._condition = threading.Condition()
        self._closed = False
        self._blocked = False
        self._allowed: int | None = None
        self._refilled = False
        self._totals = Totals()
        self._arrivals: dict[int, None] = {}  # in order
        self._release = SlotRelease(store)

    def form_windows(self, shape: WindowShape, time_steps: int, growing: int) -> None:
        """Makes windows of several time steps the items that are drawn; called before the first sample.

        Args:
            shape: The windows.
            time_steps: Time steps of a simulation.
            growing: Number of simulations that may have incomplete segments at once.

        Raises:
            StudyError: The policy draws single time steps only, or the capacity is below that of a segment.
        """
        if not self.forms_windows:
            message = (
                "reservoir.policy must be reservoir for a task whose items have several time steps; fifo and firo "
                "draw single time steps"
            )
            raise StudyError(message)
        self._segments = Segments(self.store, shape, time_steps, growing)
        self.window_steps, longest = shape.steps, self._segments.longest
        self._limit = self._segments.fitting(self.capacity)
        # As many windows as that number of time steps has; at least one of a full reservoir.
        self.items_per_sample = shape.per_time_step(time_steps)
        wanted = math.ceil(self.watermark * self.items_per_sample)
        self.watermark = min(wanted, self._limit * self._segments.least_windows)
        self.restorable = self.capacity + growing * longest

    # Methods for the ingest thread.

    def put(self, slot: int, sample: Sample) -> bool:
        """Adds a completed sample; see `put_block`.

        Returns:
            True if the sample was accepted. False if there is no room, or if the limit set by
            `allow_puts` is reached: the caller keeps the slot, tries again later, and grants no
            credit until then.
        """
        return self.put_block((slot,), SampleBlock.of(sample)) == 1

    def put_block(self, slots: Sequence[int], block: SampleBlock) -> int:
        """Adds completed samples of one simulation, as single calls of `put` would.

        Args:
            slots: An acquired slot for each sample, whose fields are all written.
            block: Metadata of the samples.

        Returns:
            The number of samples that were accepted, which are the first ones.

        Raises:
            RunError: Reception is already closed.
            ValueError: A slot was not acquired, or the input vectors have the wrong length.
        """
        with self._condition:
            if self._closed:
                message = f"a sample of simulation {block.simulation} came after reception closed"
                raise RunError(message)
            self.store.check(slots)
            self.store.describe(slots, block)
            segments = self._segments
            count = self._add_to_segments(segments, slots) if segments else self._add(slots)
            self._blocked = count < len(slots)
            if count:
                self._condition.notify_all()
            return count

    def allow_puts(self, total: int | None) -> None:
        """Limits the total number of samples that `put` accepts; None removes the limit."""
        with self._condition:
            self._allowed = total
            self._condition.notify_all()

    def close(self) -> None:
        """Ends reception. Remaining samples are drawn without waiting and removed when drawn."""
        with self._condition:
            self._closed = True
            if self._segments is not None:
                dropped = self._segments.drop_incomplete()
                self._withdraw(self._segments, dropped, IN_NO_WINDOW)
            self._condition.notify_all()

    def withdraw_all(self, reason: str) -> int:
        """Removes all samples; returns the number of those never drawn, which are counted under `reason`."""
        with self._condition:
            unseen = self._unseen_steps()
            rows = self._clear()
            self._free(rows if self._segments is None else self._segments.clear())
            self._totals.withdraw(reason, unseen)
            self._condition.notify_all()
            return unseen

    # Methods for the training thread.

    def draw(
        self, n: int, out: Mapping[str, NDArray[Any]], *, below_watermark: bool = False
    ) -> Batch | None:
        """Copies a batch of samples into the caller's arrays.

        Args:
            n: Number of samples.
            out: Name of each field or input field to a C-contiguous array `(m, *shape)` with m >= n
                and the field's dtype. A field that is not named is not copied.
            below_watermark: Draw even if fewer samples are stored than the watermark requires.
                Used when the other ranks of a collective training step would have to wait.

        Returns:
            The batch, or None if no batch can be drawn now. It has fewer than n samples only
            after the end of reception or below the watermark.

        Raises:
            StudyError: The capacity of a policy that removes drawn samples is less than n.
            ValueError: An array in `out` is too short or has another dtype.
        """
        check_out(self.store, n, self.window_steps, out)
        with self._condition:
            self._release.taken.clear()
        draw = self.begin_draw(n, below_watermark=below_watermark)
        if draw is None:
            return None
        try:
            return copied(self.store, draw, out)
        finally:
            self.end_draw(draw)

    def begin_draw(self, n: int, *, below_watermark: bool = False) -> Draw | None:
        """Selects a batch as `draw` does, whose rows the caller reads; `end_draw` must follow."""
        with self._condition:
            if not (self._ready(n) or (below_watermark and self._size() > 0)):
                return None
            draw = self._take(self._select(n))
            self._totals.draws += 1
            self._totals.samples_drawn += len(draw.selection.slots)
            if not draw.removed:
                # Samples drawn for the first time can be evicted now: ingest does not wait for the copy.
                self._condition.notify_all()
            return draw

    def end_draw(self, draw: Draw) -> None:
        """Frees the slots that the draw has removed."""
        with self._condition:
            self._release.copied = frozenset()
            self._release.free_late()
            self._free(draw.removed)
            self._condition.notify_all()

    def update_losses(self, batch: Batch, losses: NDArray[np.float64]) -> None:
        """Records the losses `(count,)`, non-negative, of a drawn batch; here, they do not matter."""

    def rescale_losses(self, factor: float) -> None:
        """Multiplies all recorded losses by a positive factor, as their unit has changed."""

    def take_arrivals(self, read: Iterable[int] | None = None) -> list[int]:
        """Returns the slots filled since the last call and not evicted yet; unchanged until the next call or `draw`.

        Args:
            read: Slots of earlier calls that may change from now on; None: all of them.
        """
        with self._condition:
            arrived, self._arrivals = list(self._arrivals), {}
            taken = self._release.taken
            taken.difference_update(list(taken) if read is None else read)
            taken.update(arrived)
            self._release.free_late()
            return arrived

    def stock(self, n: int) -> Stock:
        """Returns what can be given now, in batches of n items."""
        with self._condition:
            state = self.drained, self.blocked, self._items(), self.accepted, self._closed
            return Stock(self._ready(n), *state)

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
        """Waits until a put would succeed or reception is closed, at most `timeout` seconds; returns which."""
        with self._condition:
            self._condition.wait_for(lambda: self._room() or self._closed, timeout)
            return self._room() and not self._closed

    # Methods for any thread.

    def __len__(self) -> int:
        """Number of items that can be drawn: samples, or windows of several time steps."""
        with self._condition:
            return self._items()

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
            segments = self._segments
            slots = segments.unseen_slots() if segments else np.array(self._unseen_slots(), np.intp)
            return np.stack([self.store.simulations[slots], self.store.steps[slots]], axis=1)

    def slots(self) -> list[int]:
        """Slots of the stored samples. Samples that have been drawn may be evicted at any time."""
        with self._condition:
            return self._all() if self._segments is None else self._segments.slots().tolist()

    def counters(self) -> dict[str, Any]:
        """Returns a consistent snapshot of the counters of this rank.

        Returns:
            `stored` (samples accepted in total), `trained` (samples drawn at least once),
            `withdrawn` (reason to number of samples), `draws` (number of batches),
            `samples_drawn` (with repetitions), `seen` and `unseen` (samples stored now). The
            invariant is stored = trained + unseen + sum of withdrawn.
        """
        with self._condition:
            unseen = self._unseen_steps()
            held = self._size() if self._segments is None else self._segments.held
            return self._totals.as_dict() | {"seen": held - unseen, "unseen": unseen}

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
            if self._totals.stored:
                message = "a reservoir can only be restored before the first sample"
                raise RunError(message)
            counters = state["counters"]
            self._totals.restore(counters)
            self._totals.withdraw(LOST_WITH_SERVER, int(counters["unseen"]))
            # A rank that did not exist before keeps its own generator.
            if state["random"] is not None:
                self._random.bit_generator.state = state["random"]

    @property
    def accepted(self) -> int:
        """Number of stored samples that count for the pacing: not those of simulations that ended before a window."""
        with self._condition:
            return self._totals.stored - self._totals.withdrawn.get(IN_NO_WINDOW, 0)

    @property
    def refilled(self) -> bool:
        """Whether the samples of an earlier server were restored."""
        return self._refilled

    def rows(self) -> StoredRows:
        """Returns the slots of the stored samples, and what else is needed to restore them with `refill`."""
        with self._condition:
            order, unseen = self._all(), self._unseen_slots()
            slots, columns = stored_rows(self.store, order, unseen, self._segments)
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
            self._totals.withdraw(LOST_WITH_SERVER, -int(np.count_nonzero(~columns["seen"])))
            if self._segments is not None:
                segments = set(self._segments.restore(slots, columns))
                here = np.array([slot in segments for slot in slots.tolist()], bool)
                slots = slots[here]
                columns = {name: column[here] for name, column in columns.items()}
                columns["seen"] = columns["rounds"] > 0
            for slot in slots[np.argsort(columns["place"], kind="stable")].tolist():
                self._insert(slot)
            self._restore_columns(slots, columns)
            self._refilled = True
            self._condition.notify_all()

    # Private methods that require the lock.

    def _room(self) -> bool:
        if self._allowed is not None and self.accepted >= self._allowed:
            return False
        return self._size() < self._limit or self._evictable() > 0

    def _add(self, slots: Sequence[int]) -> int:
        """Adds as many samples as there is room for; returns their number."""
        room = max(self._limit - self._size(), 0)
        count = min(len(slots), room + self._evictable())
        if self._allowed is not None:
            count = min(count, max(self._allowed - self.accepted, 0))
        self._totals.stored += count
        self._arrivals.update(dict.fromkeys(slots[:count]))
        self._free(self._exchange(slots[:count], max(count - room, 0)))
        return count

    def _add_to_segments(self, segments: Segments, slots: Sequence[int]) -> int:
        """Adds time steps, and the segments that are complete by them; returns the number of time steps."""
        for count, slot in enumerate(slots):
            if not self._room():
                return count
            self._totals.stored += 1
            self._arrivals[slot] = None
            rows = self._complete_segments(segments, slot)
            while self._size() + len(rows) > self._limit and self._evictable():
                self._free_segment(segments, self._evict())
            for row in rows:
                self._insert(row)
        return len(slots)

    def _ready(self, n: int) -> bool:
        size = self._items()
        return size >= (1 if self._closed else max(1, self._needed(n)))

    def _free(self, slots: Sequence[int]) -> None:
        for slot in slots:
            self._arrivals.pop(slot, None)
        self._release.free(slots)

    def _free_segment(self, segments: Segments, row: int) -> None:
        # With few windows at a large stride, some steps are in none of them.
        self._withdraw(segments, segments.release(row), NOT_DRAWN)

    def _unseen_steps(self) -> int:
        return self._unseen() if self._segments is None else self._segments.unseen

    def _items(self) -> int:
        if self._segments is None:
            return self._size()
        return self._segments.left if self._closed else self._segments.windows

    def _complete_segments(self, segments: Segments, slot: int) -> list[int]:
        """Adds a time step; returns the segments that are complete by it."""
        store = self.store
        rows = segments.add(slot, int(store.simulations[slot]), int(store.steps[slot]))
        dropped = segments.surplus()
        if segments.without_segment(slot) and slot not in dropped:
            segments.forget(slot)
            dropped.append(slot)
        self._withdraw(segments, dropped, IN_NO_WINDOW)
        return rows

    def _withdraw(self, segments: Segments, slots: list[int], reason: str) -> None:
        """Frees time steps; those in no drawn window are counted as withdrawn."""
        lost = int(np.count_nonzero(~segments.trained[slots])) if slots else 0
        self._totals.withdraw(reason, lost)
        self._free(slots)

    def _take(self, chosen: Selection) -> Draw:
        """Notes a draw."""
        if self._segments is not None:
            return Draw(*self._take_windows(self._segments, chosen), [])
        new = zip(chosen.slots, chosen.unseen, strict=True)
        self._totals.trained += len({slot for slot, unseen in new if unseen})
        self._release.copied = frozenset(chosen.slots)
        removed = [slot for slot in dict.fromkeys(chosen.slots) if self._finish(slot)]
        return Draw(chosen, None, removed)

    def _take_windows(
        self, segments: Segments, selection: Selection
    ) -> tuple[Selection, list[list[int]]]:
        """Draws a window of each selected segment; returns the selection and the slots of each window."""
        windows, unseen = [], []
        for row in selection.slots:
            slots, first, new = segments.take(row, self._random, last=self._closed)
            windows.append(slots)
            unseen.append(first)
            self._totals.trained += new
        # The segment's first slot tells the simulation, and may be in no window.
        read = {slot for slots in windows for slot in slots}
        self._release.copied = frozenset(read.union(selection.slots))
        for row in dict.fromkeys(selection.slots):
            if segments.drawn(row, last=self._closed) and self._finish(row):
                self._free_segment(segments, row)
        return selection._replace(unseen=unseen), windows

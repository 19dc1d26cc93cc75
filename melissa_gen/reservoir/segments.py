"""Windows of consecutive time steps over rows of single time steps, which are neither moved nor copied.

A *segment* is a run of time steps of one simulation, and the unit that a policy stores and evicts. A draw picks one of
the windows that start in it. Neighboring segments share the rows of the steps that windows of both need, so
that windows cost no memory beyond these steps. A segment counts as drawn once each of its windows was drawn.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melissa_gen.errors import StudyError
from melissa_gen.reservoir.slot_store import SlotStore

__all__ = ["IN_NO_WINDOW", "NOT_DRAWN", "Segments", "WindowShape"]

IN_NO_WINDOW = "in no complete window"
NOT_DRAWN = "in no drawn window"
"""Reason for withdrawing time steps whose neighbors in time never arrived, or between the strides of few windows."""
_LEAST_WINDOWS, _WINDOWS_PER_OVERLAP = 8, 4


class WindowShape(NamedTuple):
    """Number of time steps of a window, and the distance between two of them."""

    steps: int
    stride: int = 1

    @property
    def span(self) -> int:
        """Number of time steps from the first to the last one, both included."""
        return (self.steps - 1) * self.stride + 1

    def longest_segment(self, time_steps: int) -> int:
        """Returns the largest number of time steps of a segment of a simulation of this length."""
        windows = max(_LEAST_WINDOWS, _WINDOWS_PER_OVERLAP * (self.span - 1))
        return min(windows + self.span - 1, time_steps)

    def per_time_step(self, time_steps: int) -> float:
        """Returns the number of windows of a simulation of this length, divided by the length."""
        return (time_steps - self.span + 1) / time_steps


class Segments:
    """The segments of one server rank. It is called with the lock of the policy held.

    The slot of a segment's first time step identifies the segment.

    Args:
        store: The rows, one for each time step.
        shape: The windows.
        time_steps: Time steps of a simulation.
        growing: Number of simulations that may have incomplete segments at once; beyond it, those of the simulation
            that has been silent for longest are dropped.

    Attributes:
        trained: Whether the step in each slot was in a drawn window, `(slots,)`.
        held: Number of time steps in memory.
        unseen: Number of those that were in no drawn window.
        windows: Number of windows of complete segments.
        left: Number of those that were not drawn in this round through their segment.
    """

    def __init__(self, store: SlotStore, shape: WindowShape, time_steps: int, growing: int) -> None:
        if shape.span > time_steps:
            message = (
                f"windows of {shape.span} time steps do not fit into simulations of {time_steps}"
            )
            raise StudyError(message)
        self.longest = shape.longest_segment(time_steps)
        self._store, self._shape, self._growing = store, shape, growing
        windows = time_steps - shape.span + 1
        count = -(-windows // (self.longest - shape.span + 1))
        # Segments of nearly equal size: first window of each, and one past the last.
        self._begins = [number * windows // count for number in range(count + 1)]
        # Segments differ by one window at most.
        self.least_windows, self.most_windows = windows // count, -(-windows // count)
        self.trained = np.zeros(store.slots, bool)
        self.held = self.unseen = self.windows = self.left = 0
        self._users = np.zeros(store.slots, np.int64)
        self._slots: dict[tuple[int, int], int] = {}
        # Steps that are missing in each incomplete segment, by simulation in the order of the last arrival.
        self._missing: dict[int, dict[int, int]] = {}
        self._dropped: set[tuple[int, int]] = set()
        self._key: dict[int, tuple[int, int]] = {}
        self._remaining: dict[int, list[int]] = {}
        self._rounds: dict[int, int] = {}

    def fitting(self, capacity: int) -> int:
        """Returns the number of segments that fit into a capacity in time steps.

        Raises:
            StudyError: None fits.
        """
        if capacity < self.longest:
            message = (
                f"reservoir.capacity is {capacity}: the task needs at least {self.longest} time steps, one segment "
                "of consecutive time steps"
            )
            raise StudyError(message)
        return capacity // self.longest

    def add(self, slot: int, simulation: int, step: int) -> list[int]:
        """Adds a time step. Returns the segments that are complete now."""
        found = []
        missing = self._missing.pop(simulation, {})
        self._slots[simulation, step] = slot
        self.trained[slot] = False
        self.held += 1
        self.unseen += 1
        for number in self._covering(step):
            if (simulation, number) in self._dropped:
                continue
            self._users[slot] += 1
            missing[number] = missing.get(number, len(self._steps(number))) - 1
            if not missing[number]:
                del missing[number]
                found.append(self._complete(simulation, number))
        if missing:
            self._missing[simulation] = missing
        return found

    def surplus(self) -> list[int]:
        """Drops incomplete segments beyond the limit, and steps that no segment needs; returns the slots to free."""
        freed = []
        while len(self._missing) > self._growing:
            freed += self._drop(next(iter(self._missing)))
        return freed

    def drop_incomplete(self) -> list[int]:
        """Drops all incomplete segments; returns the slots to free."""
        return [slot for simulation in list(self._missing) for slot in self._drop(simulation)]

    def without_segment(self, slot: int) -> bool:
        """Whether no segment needs the step in a slot, because its segment was dropped before it arrived."""
        return not int(self._users[slot])

    def forget(self, slot: int) -> None:
        """Removes a step that no segment needs."""
        del self._slots[int(self._store.simulations[slot]), int(self._store.steps[slot])]
        self.held -= 1
        self.unseen -= not self.trained[slot]

    def tickets(self, segments: Iterable[int]) -> list[int]:
        """Returns each segment as often as windows of it are left in this round."""
        return [one for one in segments for _ in self._remaining[one]]

    def size(self, segment: int) -> int:
        """Number of windows of a segment."""
        begin, end = self._range(segment)
        return end - begin

    def take(
        self, segment: int, random: np.random.Generator, *, last: bool
    ) -> tuple[list[int], bool, int]:
        """Draws a window that was not drawn in this round.

        Args:
            segment: The segment.
            random: Random generator.
            last: Whether no further round follows.

        Returns:
            The slots of its steps, whether this is its first draw, and the number of steps that no draw had before.
        """
        remaining = self._remaining[segment]
        place = int(random.integers(len(remaining)))
        remaining[place], remaining[-1] = remaining[-1], remaining[place]
        begin = remaining.pop()
        first = self._rounds[segment] == 0
        self.left -= 1
        if not remaining:
            self._rounds[segment] += 1
            if not last:
                self._begin_round(segment)
        simulation = self._key[segment][0]
        stride = self._shape.stride
        slots = [self._slots[simulation, begin + n * stride] for n in range(self._shape.steps)]
        new = int(np.count_nonzero(~self.trained[slots]))
        self.trained[slots] = True
        self.unseen -= new
        return slots, first, new

    def drawn(self, segment: int, *, last: bool) -> bool:
        """Whether all windows of a segment were drawn: in the last round, or in any."""
        return not self._remaining[segment] if last else self._rounds[segment] > 0

    def release(self, segment: int) -> list[int]:
        """Removes a segment; returns the slots to free."""
        simulation, number = self._key.pop(segment)
        self.windows -= self._begins[number + 1] - self._begins[number]
        self.left -= len(self._remaining.pop(segment))
        del self._rounds[segment]
        return self._unuse(simulation, number)

    def slots(self) -> NDArray[np.intp]:
        """Slots of all time steps in memory, ascending."""
        return np.sort(np.fromiter(self._slots.values(), np.intp, len(self._slots)))

    def unseen_slots(self) -> NDArray[np.intp]:
        """Returns the slots of the steps that were in no drawn window."""
        held = self.slots()
        return held[~self.trained[held]]

    def columns(self, slots: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
        """Returns what `restore` needs of the steps in these slots, `(n,)` each."""
        store = self._store
        rounds = np.zeros(store.slots, np.int64)
        open_windows = np.zeros(store.slots, bool)
        for segment, remaining in self._remaining.items():
            rounds[segment] = self._rounds[segment]
            simulation = int(store.simulations[segment])
            open_windows[[self._slots[simulation, begin] for begin in remaining]] = True
        return {"rounds": rounds[slots], "open": open_windows[slots]}

    def restore(self, slots: NDArray[np.intp], columns: dict[str, NDArray[Any]]) -> list[int]:
        """Adds steps of an earlier server.

        Args:
            slots: Their slots, whose simulations and steps are written already.
            columns: Those of `columns`, and `seen`: whether each step was in a drawn window.

        Returns:
            The complete segments.
        """
        found = []
        for slot in slots.tolist():
            simulation, step = int(self._store.simulations[slot]), int(self._store.steps[slot])
            found += self.add(slot, simulation, step)
        seen = slots[columns["seen"]]
        self.trained[seen] = True
        self.unseen -= len(seen)
        rounds = dict(zip(slots.tolist(), columns["rounds"].tolist(), strict=True))
        still_open = dict(zip(slots.tolist(), columns["open"].tolist(), strict=True))
        for segment in found:
            simulation = self._key[segment][0]
            remaining = [
                begin
                for begin in range(*self._range(segment))
                if still_open[self._slots[simulation, begin]]
            ]
            if remaining:
                self.left -= len(self._remaining[segment]) - len(remaining)
                self._remaining[segment], self._rounds[segment] = remaining, rounds[segment]
        return found

    def clear(self) -> list[int]:
        """Removes everything; returns the slots to free."""
        slots = list(self._slots.values())
        self._users[:] = 0
        for held in (self._slots, self._missing, self._key, self._remaining, self._rounds):
            held.clear()
        self.held = self.unseen = self.windows = self.left = 0
        return slots

    def _covering(self, step: int) -> list[int]:
        """Numbers of the segments that need a time step."""
        return [number for number in range(len(self._begins) - 1) if step in self._steps(number)]

    def _steps(self, number: int) -> range:
        return range(self._begins[number], self._begins[number + 1] + self._shape.span - 1)

    def _range(self, segment: int) -> tuple[int, int]:
        number = self._key[segment][1]
        return self._begins[number], self._begins[number + 1]

    def _complete(self, simulation: int, number: int) -> int:
        segment = self._slots[simulation, self._begins[number]]
        self._key[segment] = simulation, number
        self._rounds[segment] = 0
        self.windows += self._begins[number + 1] - self._begins[number]
        self._begin_round(segment)
        return segment

    def _begin_round(self, segment: int) -> None:
        self._remaining[segment] = list(range(*self._range(segment)))
        self.left += len(self._remaining[segment])

    def _drop(self, simulation: int) -> list[int]:
        freed = []
        for number in self._missing.pop(simulation):
            self._dropped.add((simulation, number))
            freed += self._unuse(simulation, number)
        return freed

    def _unuse(self, simulation: int, number: int) -> list[int]:
        """Frees the steps of a segment that no other segment needs."""
        freed = []
        for step in self._steps(number):
            slot = self._slots.get((simulation, step))
            if slot is None:
                continue
            self._users[slot] -= 1
            if not self._users[slot]:
                self.forget(slot)
                freed.append(slot)
        return freed

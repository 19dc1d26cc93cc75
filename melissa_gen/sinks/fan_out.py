"""Gives each sample of a server rank to several sinks."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melissa_gen.errors import MelissaGenError
from melissa_gen.protocol import wire
from melissa_gen.reservoir import Sample, SampleBlock, StoredRows
from melissa_gen.sinks.base import Sink
from melissa_gen.sinks.side_sink import Ranks, SideSink

__all__ = ["FanOut"]

_log = logging.getLogger(__name__)


class FanOut:
    """A sink that stores samples in a main sink, and then gives each stored sample to the side sinks.

    Only the main sink limits reception and counts samples. A side sink that fails is ended with one warning.

    The main sink of an earlier server may have lost samples that its side sinks had used. These samples arrive again,
    and the side sinks do not get them a second time.

    Args:
        main: Where samples are stored: a reservoir, or a sink without a trainer.
        sides: The side sinks, whose names differ.

    Attributes:
        main: Where samples are stored.
        sides: The side sinks.
        store: The slots in which samples are assembled.
        capacity: Number of samples that the main sink keeps in memory.
        watermark: Number of samples that must be stored before the first one is used.
    """

    def __init__(self, main: Sink, sides: Sequence[SideSink] = ()) -> None:
        self.main, self.sides = main, tuple(sides)
        self.store, self.capacity, self.watermark = main.store, main.capacity, main.watermark
        # Unseen samples of the last checkpoint, which the side sinks have used and the main sink may have lost.
        self._used: set[tuple[int, int]] = set()
        self._warned: set[str] = set()
        # Why side sinks have ended, in the last state.
        self._failures: dict[str, str | None] = {}

    def put_block(self, slots: Sequence[int], block: SampleBlock) -> int:
        """Adds completed samples of one simulation. Returns how many the main sink accepted, the first ones."""
        count = self.main.put_block(slots, block)
        for number in range(count if self.sides else 0):
            self._give(slots[number], block.sample(number))
        return count

    def _give(self, slot: int, sample: Sample) -> None:
        """Gives a stored sample to the side sinks, unless they have used it."""
        if self._used and (key := (sample.simulation, sample.step)) in self._used:
            self._used.remove(key)
            return
        # The main sink may have freed the slot already, but only the calling thread acquires slots and writes rows.
        fields = {name: self.store.row(slot, name) for name in self.store.arrays}
        for side in self.sides:
            if self._works(side):
                try:
                    side.consume(sample, fields)
                except Exception as error:
                    self._end(side, error)

    def close(self) -> None:
        """Ends reception. No sample may be put afterwards."""
        self.main.close()

    @property
    def closed(self) -> bool:
        """Whether reception is closed."""
        return self.main.closed

    def unseen(self) -> NDArray[np.int64]:
        """Returns (simulation, time step) of each sample in memory that has never been used, `(n, 2)`."""
        return self.main.unseen()

    def rows(self) -> StoredRows | None:
        """Returns the samples in memory for a checkpoint; None if the main sink keeps none."""
        return self.main.rows()

    def withdraw_all(self, reason: str) -> int:
        """Removes all samples. Returns the number that were never used, which are counted under `reason`."""
        return self.main.withdraw_all(reason)

    def counters(self) -> dict[str, Any]:
        """Returns the counters of the main sink."""
        return self.main.counters()

    def state(self) -> dict[str, Any]:
        """Returns the state of all sinks for a checkpoint, in JSON types and arrays."""
        states = {}
        for side in self.sides:
            try:
                states[side.name] = side.state()
            except Exception as error:
                self._end(side, error)
        again = np.array(sorted(self._used), np.int64).reshape(-1, 2)
        used = np.concatenate([self.main.unseen(), again])
        self._failures = {side.name: side.failure for side in self.sides}
        sides = {"used": used, "states": states, "failures": self._failures}
        return self.main.state() | {"sides": sides}

    def sync(self, *, publish: bool = True) -> None:
        """Waits until the files that the last `state` names are on disk (any thread); a side sink that fails ends.

        Args:
            publish: Whether the side sinks also write intermediate results.
        """
        for side in self.sides:
            try:
                if publish:
                    side.publish()
                side.sync()
            except Exception as error:
                self._end(side, error)
            self._failures[side.name] = side.failure

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores the main sink; see `restore_sides`."""
        self.main.restore(state)

    def restore_sides(self, saved: Sequence[Mapping[str, Any]], rank: int, ranks: int) -> None:
        """Restores the side sinks, before the first sample.

        Args:
            saved: The `sides` of the states of all earlier ranks, in order.
            rank: This rank.
            ranks: Number of ranks now.
        """
        for one in saved:
            mine = one["used"][wire.owner(one["used"][:, 0], ranks) == rank]
            self._used.update(map(tuple, mine.tolist()))
        states = [*saved[rank : rank + 1], *(saved[ranks:] if rank == 0 else ())]
        for side in self.sides:
            mine, every = (
                [one["states"][side.name] for one in given if side.name in one["states"]]
                for given in (states, saved)
            )
            side.restore(mine, every)
            # What ended on one rank would lack its samples.
            ended = [one["failures"].get(side.name) for one in saved]
            side.failure = next((reason for reason in ended if reason is not None), side.failure)

    def keep(self, samples: Iterable[tuple[int, int]]) -> None:
        """Notes samples (simulation, time step) that the main sink has again, so that they do not arrive again."""
        self._used.difference_update(samples)

    def finish(self, ranks: Ranks, *, complete: bool) -> None:
        """Writes the results of the side sinks after the last sample (collective)."""
        for side in self.sides:
            try:
                side.finish(ranks, complete=complete)
            except Exception as error:
                self._end(side, error)
            self._works(side)

    def summary(self) -> dict[str, Any]:
        """Returns the section of each side sink; `failure` is why it has ended early, or null."""
        return {side.name: side.summary() | {"failure": side.failure} for side in self.sides}

    def _works(self, side: SideSink) -> bool:
        """Returns whether a side sink still works; warns once if it does not."""
        if side.failure is None:
            return True
        if side.name not in self._warned:
            self._warned.add(side.name)
            _log.warning("%s has ended, and the study continues: %s", side.name, side.failure)
        return False

    def _end(self, side: SideSink, error: Exception) -> None:
        """Ends a side sink that raised an exception."""
        expected = isinstance(error, MelissaGenError | OSError)
        if side.failure is None:
            side.failure = str(error) if expected else f"{type(error).__name__}: {error}"
        if not expected:
            _log.error("%s failed", side.name, exc_info=error)
        self._works(side)

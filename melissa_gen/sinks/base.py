"""Interface between ingest and the receivers of samples, and the base class of sinks without a trainer."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from melissa_gen.errors import RunError
from melissa_gen.reservoir import Sample, SampleBlock, SlotStore, StoredRows

__all__ = ["Sink", "StreamSink"]


class Sink(Protocol):
    """Receives the completed samples of one server rank. Every `reservoir.Policy` implements this interface.

    The ingest thread calls all methods. Samples are never dropped silently: `counters` always satisfies
    `stored = used + unseen + withdrawn`, where a sample is used by training on it or by recording it.

    Attributes:
        store: The slots in which samples are assembled.
        capacity: Number of samples that the sink keeps in memory.
        watermark: Number of samples that must be stored before the first one is used.
    """

    store: SlotStore
    capacity: int
    watermark: int

    def put_block(self, slots: Sequence[int], block: SampleBlock) -> int:
        """Adds completed samples of one simulation, each in a slot.

        Returns:
            The number of samples that were accepted, which are the first ones. The caller tries the others again later.
        """
        ...

    def close(self) -> None:
        """Ends reception. No sample may be put afterwards."""
        ...

    @property
    def closed(self) -> bool:
        """Whether reception is closed."""
        ...

    def unseen(self) -> NDArray[np.int64]:
        """Returns (simulation, time step) of each sample in memory that has never been used, `(n, 2)`."""
        ...

    def rows(self) -> StoredRows | None:
        """Returns the samples in memory for a checkpoint; None if the sink keeps none."""
        ...

    def withdraw_all(self, reason: str) -> int:
        """Removes all samples. Returns the number that were never used, which are counted under `reason`."""
        ...

    def counters(self) -> dict[str, Any]:
        """Returns a consistent snapshot of the counters of this rank."""
        ...

    def state(self) -> dict[str, Any]:
        """Returns the checkpoint state in JSON types."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores the `state()` of an earlier server, before the first sample."""
        ...


class StreamSink(ABC):
    """A sink that uses each sample once, as it arrives, and keeps none in memory.

    Args:
        store: The slots in which samples are assembled.
    """

    capacity = 0
    watermark = 0

    def __init__(self, store: SlotStore) -> None:
        self.store = store
        self._recorded = 0
        self._closed = threading.Event()

    @abstractmethod
    def consume(self, sample: Sample, fields: Mapping[str, NDArray[Any]]) -> None:
        """Uses one sample.

        Args:
            sample: Simulation, time step, inputs (parameters and physical time), and input fields.
            fields: Field name to values `(*shape)`. The arrays are reused after the call.

        Raises:
            DataError: The sample can't be written.
        """

    def put(self, slot: int, sample: Sample) -> bool:
        """Uses the sample in a slot and frees the slot.

        Args:
            slot: An acquired slot whose fields are all written.
            sample: Metadata of the sample.

        Returns:
            True: there is always room.

        Raises:
            RunError: Reception is already closed.
            DataError: The sample can't be written.
        """
        if self.closed:
            message = f"a sample of simulation {sample.simulation} came after reception closed"
            raise RunError(message)
        self.store.check((slot,))
        fields = {name: self.store.row(slot, name) for name in self.store.arrays}
        self.consume(sample, fields)
        self._recorded += 1
        self.store.release(slot)
        return True

    def put_block(self, slots: Sequence[int], block: SampleBlock) -> int:
        """Uses the samples of one simulation, each in a slot, and frees the slots. Returns their number."""
        for number, slot in enumerate(slots):
            self.put(slot, block.sample(number))
        return len(slots)

    def close(self) -> None:
        """Ends reception. No sample may be put afterwards."""
        self._closed.set()

    @property
    def closed(self) -> bool:
        """Whether reception is closed."""
        return self._closed.is_set()

    def wait_closed(self, timeout: float) -> bool:
        """Waits until reception is closed, at most `timeout` seconds. Returns whether it is closed."""
        return self._closed.wait(timeout)

    @property
    def recorded(self) -> int:
        """Number of samples used so far."""
        return self._recorded

    def unseen(self) -> NDArray[np.int64]:
        """Returns an empty array, because each sample is used as it arrives."""
        return np.zeros((0, 2), np.int64)

    def rows(self) -> StoredRows | None:
        """Returns None, because no sample remains in memory."""
        return None

    def withdraw_all(self, reason: str) -> int:
        """Returns 0, because no sample remains in memory."""
        return 0

    def counters(self) -> dict[str, Any]:
        """Returns the counters. `recorded` replaces `trained`."""
        return {
            "stored": self._recorded,
            "recorded": self._recorded,
            "trained": 0,
            "withdrawn": {},
            "draws": 0,
            "samples_drawn": 0,
            "seen": 0,
            "unseen": 0,
        }

    def state(self) -> dict[str, Any]:
        """Returns the checkpoint state: the counters. Subclasses may add entries."""
        return {"counters": self.counters()}

    def sync(self) -> None:
        """Waits until what the last `state` names is on disk (any thread).

        Raises:
            OSError: It can't be written to disk.
        """

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores the `state()` of an earlier server."""
        self._recorded = int(state["counters"]["recorded"])

    def finish(self, *, complete: bool) -> None:
        """Finishes the output after the last sample.

        Args:
            complete: Whether the study is complete; False if it was stopped and may be resumed.

        Raises:
            DataError: The remaining data can't be written.
        """

    def summary(self) -> dict[str, Any]:
        """Returns additional sections of `summary.json` in JSON types."""
        return {}

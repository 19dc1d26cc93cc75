"""The interface between ingest and what receives samples, and the base class of sinks without a trainer."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from melissa_gen.errors import RunError
from melissa_gen.reservoir import Sample, SlotStore

__all__ = ["Sink", "StreamSink"]


class Sink(Protocol):
    """Receives the complete samples of one server rank; every `reservoir.Policy` is one.

    The ingest thread calls all methods. Samples are never dropped silently: `counters` always satisfy
    `stored = used + unseen + withdrawn`, where samples are used by training or by recording.

    Attributes:
        store: The rows that samples are assembled in.
        capacity: Samples that the sink keeps in memory.
        watermark: Samples that it waits for before the first one is used.
    """

    store: SlotStore
    capacity: int
    watermark: int

    def put(self, slot: int, sample: Sample) -> bool:
        """Takes over a complete row; returns False if there is no room yet, and the caller tries again."""
        ...

    def close(self) -> None:
        """Ends reception: nothing more will be put."""
        ...

    @property
    def closed(self) -> bool:
        """Whether reception has ended."""
        ...

    def unseen(self) -> list[tuple[int, int]]:
        """Returns (simulation, time step) of each sample in memory that was never used."""
        ...

    def withdraw_all(self, reason: str) -> int:
        """Empties the memory; returns the number of samples that were never used, counted under `reason`."""
        ...

    def counters(self) -> dict[str, Any]:
        """Returns the accounting of this rank, consistent at one instant."""
        ...

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps, in JSON types."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from the `state()` of an earlier server; before the first sample."""
        ...


class StreamSink(ABC):
    """A sink that uses each sample once, as it arrives, and keeps none in memory.

    Args:
        store: The rows that samples are assembled in.
    """

    capacity = 0
    watermark = 0

    def __init__(self, store: SlotStore) -> None:
        self.store = store
        self._recorded = 0
        self._closed = threading.Event()

    @abstractmethod
    def consume(
        self, simulation: int, step: int, inputs: Any, fields: Mapping[str, NDArray[Any]]
    ) -> None:
        """Uses one sample.

        Args:
            simulation: Number of the simulation.
            step: Time step.
            inputs: Parameters and physical time (d + 1,).
            fields: Field name to its values (*shape); the arrays are reused after the call.

        Raises:
            DataError: The sample can't be written.
        """

    def put(self, slot: int, sample: Sample) -> bool:
        """Uses the sample in a row and frees the row.

        Raises:
            RunError: Reception was already closed.
            DataError: The sample can't be written.
        """
        if self.closed:
            message = f"a sample of simulation {sample.simulation} came after reception closed"
            raise RunError(message)
        self.store.check(slot)
        fields = {name: self.store.row(slot, name) for name in self.store.arrays}
        self.consume(sample.simulation, sample.step, sample.inputs, fields)
        self._recorded += 1
        self.store.release(slot)
        return True

    def close(self) -> None:
        """Ends reception: nothing more will be put."""
        self._closed.set()

    @property
    def closed(self) -> bool:
        """Whether reception has ended."""
        return self._closed.is_set()

    def wait_closed(self, timeout: float) -> bool:
        """Waits until reception ends, at most `timeout` seconds; returns whether it has ended."""
        return self._closed.wait(timeout)

    @property
    def recorded(self) -> int:
        """Number of samples used so far."""
        return self._recorded

    def unseen(self) -> list[tuple[int, int]]:
        """Returns no samples: each is used as it arrives."""
        return []

    def withdraw_all(self, reason: str) -> int:
        """Returns 0: no sample waits in memory."""
        return 0

    def counters(self) -> dict[str, Any]:
        """Returns the accounting: `recorded` samples take the place of those trained on."""
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
        """Returns the counters; a sink that keeps more adds to them."""
        return {"counters": self.counters()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from the `state()` of an earlier server."""
        self._recorded = int(state["counters"]["recorded"])

    def finish(self, *, complete: bool) -> None:  # noqa: B027
        """Ends the use of the stream, after the last sample.

        Args:
            complete: Whether the study reached its end; False where it was stopped and may be resumed.

        Raises:
            DataError: The rest can't be written.
        """

    def summary(self) -> dict[str, Any]:
        """Returns sections for `summary.json`, in JSON types."""
        return {}

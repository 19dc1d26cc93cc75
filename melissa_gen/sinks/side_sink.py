"""Interface of the sinks that use the samples of a study beside its training: recording and statistics."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

from melissa_gen.reservoir import Sample

__all__ = ["Ranks", "SideSink"]


class Ranks(Protocol):
    """Communication between the server ranks; all ranks call each method in the same order."""

    def barrier(self) -> None:
        """Waits until all ranks have called this method."""
        ...

    def gather(self, value: dict[str, Any]) -> list[dict[str, Any]]:
        """Returns the values (JSON types) of all ranks, in order."""
        ...


class SideSink(ABC):
    """Uses each stored sample of a server rank once, beside the sink that stores it.

    `FanOut` calls all methods. An exception in `consume`, `state`, `publish`, `sync` or `finish` ends this sink with
    one warning; training and the other sinks continue. A sink that fails on a thread of its own sets `failure`.

    Attributes:
        name: Name of the sink: its section in the study, and its key in checkpoints and in `summary.json`.
        failure: Why the sink has ended before the study, as a sentence without a full stop; None while it works.
    """

    name: ClassVar[str]
    failure: str | None = None

    @abstractmethod
    def consume(self, sample: Sample, fields: Mapping[str, NDArray[Any]]) -> None:
        """Uses one sample (ingest thread, which receives nothing during the call).

        No sample is given twice, also after the run was resumed from a checkpoint.

        Args:
            sample: Simulation, time step, inputs (parameters and physical time) and importance weight.
            fields: Field name to values `(*shape)`. The arrays are reused after the call.
        """

    def state(self) -> dict[str, Any]:
        """Returns the state for a checkpoint, of JSON types and arrays (ingest thread).

        The state covers exactly the samples that were consumed so far. Its content may be completed until `sync`
        returns. Its arrays must be copies.
        """
        return {}

    def publish(self) -> None:
        """Writes intermediate results, those of the last `state` (checkpoint's thread, before `sync`).

        The last checkpoint does not call it, because `finish` follows.
        """

    def sync(self) -> None:
        """Completes the last `state`, and waits until the files that it names are on disk (checkpoint's thread)."""

    def restore(
        self, states: Sequence[Mapping[str, Any]], every: Sequence[Mapping[str, Any]]
    ) -> None:
        """Continues from the states of earlier servers, before the first sample.

        Args:
            states: The state of this rank, if it had one. Rank 0 also gets those of ranks that no longer exist.
            every: The states of all earlier ranks. With another number of ranks, simulations belong to other ranks.
        """

    def finish(self, ranks: Ranks, *, complete: bool) -> None:
        """Writes the results after the last sample (collective).

        Args:
            ranks: Communication with the sinks of the other ranks.
            complete: Whether the study is complete; False if it was stopped and may be resumed.
        """

    def summary(self) -> dict[str, Any]:
        """Returns the section of this sink in `summary.json`, in JSON types (rank 0, after `finish`)."""
        return {}

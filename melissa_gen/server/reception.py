"""Interface between a rank and what receives its samples: the ingest process, or the ingest thread.

It imports none of them, so that a rank that trains does not load what only its ingest process needs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from melissa_gen.protocol.contact import Contact
from melissa_gen.server.collectives import Collectives
from melissa_gen.server.consumer import Consumer
from melissa_gen.server.coordination.control_process import ControlProcess
from melissa_gen.server.setup import Checkpoint

__all__ = ["Binding", "Reception", "Recipient", "SampleSaver"]


class SampleSaver(Protocol):
    """Saves the samples in memory to a file."""

    def run(self, canceled: Callable[[], bool] = ...) -> bool:
        """Writes them; returns False if it was canceled."""
        ...


class Reception(Protocol):
    """Receives the samples of a rank, and stores them in its sinks."""

    def counters(self) -> dict[str, Any]:
        """Returns the counters of the main sink."""
        ...

    def state(self, rows_file: Path | None) -> SampleSaver | None:
        """Takes the state of assembler and sinks for `save`, consistent at one instant.

        Args:
            rows_file: File for the samples in memory, or None if they are not saved.

        Returns:
            The saver of the samples, whose `run` must be called before `save`.
        """
        ...

    def close(self, rows_file: Path | None = None) -> SampleSaver | None:
        """Ends reception; takes the state before the samples in memory were withdrawn."""
        ...

    def save(self, partial: Path, *, publish: bool) -> None:
        """Completes the last state, and writes it into the folder of a checkpoint (checkpoint's thread).

        This can take a minute, so that ingest must not do it: a rank that sends no reports counts as lost.

        Args:
            partial: The folder.
            publish: Whether the side sinks also write intermediate results.

        Raises:
            OSError: The files can't be written.
        """
        ...

    def finish(self, ranks: Collectives, *, complete: bool) -> None:
        """Writes the results of the side sinks after the last sample (collective)."""
        ...

    def summary(self) -> dict[str, Any]:
        """Returns the section of each side sink in the summary."""
        ...

    def end(self) -> float:
        """Ends the sinks; returns the peak memory of a process of its own, in megabytes."""
        ...

    def leave(self) -> None:
        """Sends what is queued, for at most the linger time of the sockets: all of them are closed now."""
        ...


@dataclass(frozen=True)
class Recipient:
    """What receives the samples of a rank, and what uses them.

    Attributes:
        reception: Receives, and stores in the sinks.
        consumer: Creates the consumer. With training this imports torch, which takes seconds.
    """

    reception: Reception
    consumer: Callable[[], Consumer]


@dataclass(frozen=True)
class Binding:
    """The bound data socket of a rank.

    Attributes:
        endpoint: Its endpoint.
        machine: This machine, if clients on it may write into shared memory, else "".
        open: Creates the recipient (collective). Takes the contact with all endpoints, the checkpoint to continue from,
            and on rank 0 the control process, whose sampler may use the surrogate. Raises StudyError if the task of the
            surrogate does not fit the study, and DataError if a file can't be written or continued.
    """

    endpoint: str
    machine: str
    open: Callable[[Contact, Checkpoint | None, ControlProcess | None], Recipient]

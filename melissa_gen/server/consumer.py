"""The base class of the consumers of a server rank's samples: training, or recording without a trainer."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melissa_gen.server.collectives import Collectives
from melissa_gen.server.rank_state import RankState

__all__ = ["Consumer", "Hooks"]


@dataclass(frozen=True)
class Hooks:
    """Functions that a consumer calls while it runs.

    Attributes:
        event: Writes an event (only rank 0 acts on it).
        fail: Stops the study, with a sentence as the reason (only rank 0 acts on it).
        checkpoint: Begins to save the state of all ranks (collective).
        may_checkpoint: Whether the last checkpoint is complete, so that the next one can begin (rank 0).
        reached: Ends the study as finished, with a sentence as the reason (only rank 0 acts on it).
    """

    event: Callable[..., Any]
    fail: Callable[[str], None]
    checkpoint: Callable[[], None]
    may_checkpoint: Callable[[], bool] = lambda: True
    reached: Callable[[str], None] = lambda reason: None


class Consumer(ABC):
    """Uses the samples of one server rank until the stream has ended.

    Attributes:
        shared: State shared with ingest.
        collectives: Communication with the consumers of the other ranks.
    """

    shared: RankState
    collectives: Collectives

    @abstractmethod
    def attach(self, hooks: Hooks) -> None:
        """Prepares to run; called once, after ingest has started."""

    @abstractmethod
    def run(self) -> str | None:
        """Runs until the stream has ended and all of it is used.

        Returns:
            None, or the reason why the study was stopped before the end of the stream.
        """

    @property
    @abstractmethod
    def progress(self) -> int:
        """A number that only grows and orders checkpoints; 0 if there is nothing to save yet."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Returns the state of this rank for a checkpoint, of JSON types, without the sink and ingest."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any], folder: Path, shared: Mapping[str, Any]) -> None:
        """Continues from a checkpoint; called after `attach`.

        Args:
            state: This rank's `state()`.
            folder: Folder of the checkpoint, with the files of `save_model`.
            shared: The return value of `save_model`.
        """

    def sync(self) -> None:
        """Waits until the files that the last state of the sink names are on disk (any thread).

        Raises:
            OSError: They can't be written to disk.
        """

    def prepare_checkpoint(self) -> None:
        """Exchanges what the files of a checkpoint need of all ranks, before any of them is written (collective)."""

    def save_model(self, folder: Path) -> dict[str, Any]:
        """Writes the model, which all ranks share, into the folder of a checkpoint (rank 0).

        Returns:
            Settings to keep in the checkpoint's state.
        """
        return {}

    def write_results(self) -> None:
        """Writes results after the end of the stream, while ingest still runs (collective)."""

    def close(self, *, complete: bool) -> None:
        """Ends the use of the stream, after ingest has ended.

        Args:
            complete: Whether the study has reached its end; False if it was stopped and may be resumed.
        """

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """Returns sections of `summary.json` (rank 0)."""

    @property
    def flaw(self) -> str | None:
        """Why the result is worthless although the stream was used to its end, or None (rank 0)."""
        return None

    @property
    def fit_to_save(self) -> bool:
        """Whether the state may replace an earlier checkpoint (rank 0)."""
        return True

    @property
    def warnings(self) -> list[str]:
        """Sentences that are shown to the user when the server is ready."""
        return []

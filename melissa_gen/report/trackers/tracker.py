"""The interface of an experiment tracker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["TrackedRun", "Tracker"]


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker gets to know about a run before its first metrics.

    Attributes:
        study: Name of the study, under which its runs are grouped.
        name: Name of the run directory.
        folder: Folder in the run directory for files of the tracker.
        parameters: Keys of the study to their values.
        earlier: What `Tracker.start` returned in the part of the run that is resumed; "" in a new run.
    """

    study: str
    name: str
    folder: Path
    parameters: Mapping[str, str | int | float | bool]
    earlier: str = ""


class Tracker(Protocol):
    """Records one run. Any method may fail or hang: see `following`."""

    def start(self, run: TrackedRun) -> str:
        """Begins a record, or continues an earlier one.

        Returns:
            The name by which the record can be continued.
        """
        ...

    def log(self, metrics: Mapping[str, float], step: int, time: float) -> None:
        """Records finite numbers.

        Args:
            metrics: Names to numbers.
            step: Number of batches; it may be smaller than at the last call.
            time: When they were measured (seconds since the epoch).
        """
        ...

    def log_artifact(self, name: str, files: Sequence[Path]) -> None:
        """Records files under a common name."""
        ...

    def finish(self, *, succeeded: bool) -> None:
        """Ends the record and waits until it is written."""
        ...

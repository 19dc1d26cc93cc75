"""What a back end offers to the launcher: MPI jobs that are started, watched and ended, wherever they run."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

__all__ = ["Backend", "JobExit", "MpiJob"]


class MpiJob(NamedTuple):
    """An MPI job that is to be started."""

    name: str
    """Name of the job; one of that name must not be running."""
    command: tuple[str, ...]
    """Executable and arguments of each rank, absolute where they are paths."""
    processes: int
    """Ranks."""
    environment: Mapping[str, str]
    """Set over what the back end gives."""


class JobExit(NamedTuple):
    """A job that has ended."""

    name: str
    code: int
    """Exit status; negative: the signal that ended it."""
    why: str = ""
    """What the scheduler says of it, where it did not end by itself: cancelled, preempted, out of time, refused."""


class Backend(Protocol):
    """Starts, watches and ends MPI jobs; no call waits for a process or for a scheduler."""

    @property
    def running(self) -> list[str]:
        """Names of the jobs whose end has not been reported yet."""

    @property
    def queued(self) -> frozenset[str]:
        """Names of those that have not begun: they wait in a scheduler's queue."""

    def log(self, name: str) -> Path:
        """Returns where a job's output goes."""

    def start(
        self, name: str, command: tuple[str, ...], processes: int, environment: Mapping[str, str]
    ) -> None:
        """Starts a job, or puts it into the queue.

        Args:
            name: Name of the job; one of that name must not be running.
            command: Executable and arguments, absolute where they are paths.
            processes: Ranks.
            environment: Set over what the back end gives.

        Raises:
            RunError: It can't be started.
        """

    def poll(self) -> list[JobExit]:
        """Returns the jobs that have ended since the last call."""

    def notes(self) -> list[str]:
        """Returns sentences for the user that have come up since the last call."""

    def seconds_left(self, name: str) -> float | None:
        """Returns in how many seconds a time limit ends a job; None where none does or none is known."""

    def terminate(self, name: str) -> None:
        """Asks a job to end; `poll` tells when it has."""

    def kill(self, name: str) -> None:
        """Ends every process of a job now; `poll` tells when they are gone."""

    def kill_all(self) -> None:
        """Ends every process of every job now."""

    def close(self) -> None:
        """Ends whatever still runs and waits for it, but not for ever."""

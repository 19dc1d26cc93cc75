"""The interface of a back end, which starts, polls and terminates MPI jobs."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

__all__ = ["SERVER", "Backend", "JobExit", "MpiJob"]

SERVER = "server"
"""Name of the server's job."""


class MpiJob(NamedTuple):
    """Description of an MPI job to start."""

    name: str
    """Name of the job; no running job may have the same name."""
    command: tuple[str, ...]
    """Executable and arguments of each rank; paths are absolute."""
    processes: int
    """Number of MPI ranks."""
    environment: Mapping[str, str]
    """Environment variables, which override those set by the back end."""


class JobExit(NamedTuple):
    """Name and exit status of a job that has ended."""

    name: str
    code: int
    """Exit status; negative: number of the signal that ended it."""
    why: str = ""
    """The scheduler's explanation if the job did not end by itself (canceled, preempted, time limit, refused)."""


class Backend(Protocol):
    """Starts, polls and terminates MPI jobs. Except for `close`, no method blocks on a process or a scheduler."""

    @property
    def running(self) -> list[str]:
        """Names of the jobs whose end `poll` has not returned yet."""

    @property
    def queued(self) -> frozenset[str]:
        """Names of the jobs that wait in a scheduler's queue."""

    def log(self, name: str) -> Path:
        """Returns the path of a job's log file."""

    def start(
        self, name: str, command: tuple[str, ...], processes: int, environment: Mapping[str, str]
    ) -> None:
        """Starts a job or submits it to the scheduler.

        Args:
            name: Name of the job; no running job may have the same name.
            command: Executable and arguments; paths are absolute.
            processes: Number of MPI ranks.
            environment: Environment variables, which override those set by the back end.

        Raises:
            RunError: The job cannot be started.
        """

    def poll(self) -> list[JobExit]:
        """Returns the jobs that have ended since the last call."""

    def notes(self) -> list[str]:
        """Returns the messages for the user that were created since the last call."""

    def seconds_left(self, name: str) -> float | None:
        """Returns the seconds until a job's time limit; None if there is no limit or it is unknown."""

    def terminate(self, name: str) -> None:
        """Requests the end of a job (SIGTERM); `poll` reports when it has ended."""

    def kill(self, name: str) -> None:
        """Kills every process of a job (SIGKILL); `poll` reports when they have ended."""

    def kill_all(self) -> None:
        """Kills every process of every job (SIGKILL)."""

    def close(self) -> None:
        """Kills all running jobs and waits for their end, up to a timeout."""

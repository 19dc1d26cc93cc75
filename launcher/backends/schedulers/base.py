"""The interface of a scheduler adapter: pure functions that render scripts and commands and parse their output."""

import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from melissa_gen.errors import StudyError
from melissa_gen.launcher.backends.base import MpiJob
from melissa_gen.study import JobsSection

__all__ = [
    "JobSpec",
    "JobStatus",
    "Scheduler",
    "SubmitError",
    "check_settings",
    "is_plain",
    "job_spec",
    "preamble",
    "redirection",
]

SubmitError = Literal["rejected", "unreachable", "limit"]
"""Why a submission failed: it is invalid, the scheduler did not respond, or a limit prevents it for now."""


@dataclass(frozen=True)
class JobSpec:
    """An MPI job with the resources that it requests from the scheduler.

    Attributes:
        title: Unique name of the job in the scheduler.
        command: Executable and arguments of each rank.
        processes: Number of MPI ranks.
        environment: Environment variables to set.
        log: File for the output of all ranks.
        folder: Working directory.
        settings: Requested resources.
    """

    title: str
    command: tuple[str, ...]
    processes: int
    environment: Mapping[str, str]
    log: Path
    folder: Path
    settings: JobsSection


def job_spec(job: MpiJob, suffix: str, logs: Path, folder: Path, settings: JobsSection) -> JobSpec:
    """Returns the scheduler job of an MPI job.

    Args:
        job: The MPI job.
        suffix: Appended to the name of the job, so that its title is unique.
        logs: Folder for the log file.
        folder: Working directory.
        settings: Requested resources.
    """
    variables = {"OMP_NUM_THREADS": str(settings.cpus_per_task or 1), "PYTHONUNBUFFERED": "1"}
    return JobSpec(
        f"{job.name}-{suffix}",
        job.command,
        job.processes,
        variables | dict(job.environment),
        logs / f"{job.name}.log",
        folder,
        settings,
    )


@dataclass(frozen=True)
class JobStatus:
    """The status of a job as reported by the scheduler.

    Attributes:
        title: Name of the job; "" if the scheduler does not report it.
        state: Whether the job waits, runs, or has ended.
        code: Exit status after the end; negative: number of the signal that ended the job.
        why: Why the job waits, or why it ended if not by itself.
        seconds_left: Time until the time limit in seconds; None if there is no limit or it is not reported.
        held: Whether something other than its priority keeps the job in the queue, such as a limit, a hold, or a
            partition that is down.
    """

    title: str
    state: Literal["queued", "running", "ended"]
    code: int = 0
    why: str = ""
    seconds_left: float | None = None
    held: bool = False


class Scheduler(Protocol):
    """Adapter for a batch scheduler. It renders commands and parses their output; it never runs a command."""

    name: str

    def script(self, job: JobSpec) -> str:
        """Renders the script of a job.

        Raises:
            StudyError: The job requests something that the scheduler does not support.
        """

    def submit_command(self, script: Path, job: JobSpec) -> list[str]:
        """Renders the command that submits a script."""

    def job_id(self, output: str) -> str:
        """Parses a job's id from the output of the submit command.

        Raises:
            ValueError: The output contains no id.
        """

    def classify_submit_error(self, message: str) -> SubmitError:
        """Classifies the error message of a command.

        Args:
            message: The error message.

        Returns:
            `unreachable`: the scheduler did not respond. `limit`: the submission may succeed later. `rejected`: the
            submission can never succeed.
        """

    def query_command(self, ids: Iterable[str]) -> list[str]:
        """Renders the command that queries the states of all jobs."""

    def parse(self, output: str) -> dict[str, JobStatus]:
        """Parses the output of the query command.

        Returns:
            The status of each job by id. Jobs that the scheduler no longer lists are missing.

        Raises:
            ValueError: The output is malformed.
        """

    def history_command(self, job_id: str) -> list[str] | None:
        """Renders the command that queries the accounting for a job that has ended; None if there is no accounting."""

    def parse_history(self, output: str) -> JobStatus | None:
        """Parses the output of the history command; None if it does not contain the end of the job."""

    def cancel_command(self, ids: Iterable[str], *, kill: bool) -> list[str]:
        """Renders the command that ends jobs, with SIGTERM or with SIGKILL."""


def is_plain(path: Path) -> bool:
    """Returns whether every scheduler reads a path in an option line of a script as it is.

    Schedulers differ in how they read blanks, quotes and backslashes there, and replace parts such as `%j`.
    """
    return re.fullmatch(r"[\w@+=:,./-]+", str(path)) is not None


def redirection(log: Path) -> str:
    """Returns the line of a script that writes its output to a log that no option line can name."""
    return f"exec >> {shlex.quote(str(log))} 2>&1"


def check_settings(backend: str, settings: JobsSection, legal: Collection[str]) -> None:
    """Checks that a back end supports all settings of a job.

    Args:
        backend: Name of the back end.
        settings: Requested resources.
        legal: Names of the supported settings.

    Raises:
        StudyError: A setting is not supported.
    """
    for key in settings.model_dump(exclude_none=True):
        if key not in legal:
            msg = (
                f"launcher.*jobs.{key} is set, but launcher.backend {backend} does not support it; "
                f"legal are {', '.join(sorted(legal))}; use directives for other options of the scheduler"
            )
            raise StudyError(msg)


def preamble(settings: JobsSection, environment: Mapping[str, str]) -> list[str]:
    """Returns the lines of a job script between the options and the command: modules, prologue and environment."""
    lines = ["set -e"]
    if settings.modules:
        lines += ["module purge", "module load " + shlex.join(settings.modules)]
    lines += settings.prologue or []
    lines += [f"export {key}={shlex.quote(value)}" for key, value in environment.items()]
    return lines

"""What the batch back end must know of a scheduler: pure functions from a job to text and from text to states."""

import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from melissa_gen.errors import StudyError
from melissa_gen.launcher.backends.base import MpiJob
from melissa_gen.study import JobsSection

__all__ = ["JobSpec", "JobStatus", "Scheduler", "job_spec", "preamble", "refuse_settings"]


@dataclass(frozen=True)
class JobSpec:
    """One MPI job as a job.

    Attributes:
        title: The job's name in the scheduler, unlike that of any other job.
        command: Executable and arguments of each rank.
        processes: Ranks.
        environment: Variables to set.
        log: File for the output of all ranks.
        folder: Working directory.
        settings: What the job asks for.
    """

    title: str
    command: tuple[str, ...]
    processes: int
    environment: Mapping[str, str]
    log: Path
    folder: Path
    settings: JobsSection


def job_spec(job: MpiJob, mark: str, logs: Path, folder: Path, settings: JobsSection) -> JobSpec:
    """Makes a job of a job.

    Args:
        job: What runs.
        mark: Makes the job's title unlike that of any other.
        logs: Folder of the log.
        folder: Working directory.
        settings: What the job asks for.
    """
    variables = {"OMP_NUM_THREADS": str(settings.cpus_per_task or 1), "PYTHONUNBUFFERED": "1"}
    return JobSpec(
        f"{job.name}-{mark}",
        job.command,
        job.processes,
        variables | dict(job.environment),
        logs / f"{job.name}.log",
        folder,
        settings,
    )


@dataclass(frozen=True)
class JobStatus:
    """A job as the scheduler sees it.

    Attributes:
        title: Its name; "" where the scheduler does not tell.
        state: Whether it waits, runs, or has ended.
        code: Exit status once it has ended; negative: a signal.
        why: Why it waits, or why it ended if not by itself.
        seconds_left: Until its time limit; None where there is none.
        held: Whether it waits for something else than its turn: a limit, a hold, a partition that is down.
    """

    title: str
    state: Literal["queued", "running", "ended"]
    code: int = 0
    why: str = ""
    seconds_left: float | None = None
    held: bool = False


class Scheduler(Protocol):
    """A batch scheduler's language. None of these functions runs a command."""

    name: str

    def script(self, job: JobSpec) -> str:
        """Renders the script of a job."""

    def submit_command(self, script: Path, job: JobSpec) -> list[str]:
        """Renders the command that submits a script."""

    def job_id(self, output: str) -> str:
        """Reads a job's id from what the submit command printed.

        Raises:
            ValueError: There is none.
        """

    def classify_submit_error(self, message: str) -> Literal["no", "silent", "limit"]:
        """Judges a refused submission: `silent`: the scheduler did not answer; `limit`: not now; `no`: never."""

    def query_command(self, ids: Iterable[str]) -> list[str]:
        """Renders the one command that asks about all jobs."""

    def parse(self, output: str) -> dict[str, JobStatus]:
        """Reads the answer: id to state. Jobs that are gone are not in it.

        Raises:
            ValueError: It can't be read, and tells nothing of any job.
        """

    def history_command(self, job_id: str) -> list[str] | None:
        """Renders the command that asks the accounting about a job that is gone; None where there is no such thing."""

    def parse_history(self, output: str) -> JobStatus | None:
        """Reads its answer."""

    def cancel_command(self, ids: Iterable[str], *, kill: bool) -> list[str]:
        """Renders the command that ends jobs: in their own time, or at once."""


def refuse_settings(backend: str, settings: JobsSection, legal: Collection[str]) -> None:
    """Refuses what a job asks for and a back end has no word for.

    Args:
        backend: Its name.
        settings: What the job asks for.
        legal: The settings that it knows.

    Raises:
        StudyError: There is such a setting.
    """
    for key in settings.model_dump(exclude_none=True):
        if key not in legal:
            msg = (
                f"launcher.*jobs.{key} is set, but launcher.backend {backend} can't tell it to the scheduler; "
                f"legal are {', '.join(sorted(legal))}; other options go into directives"
            )
            raise StudyError(msg)


def preamble(settings: JobsSection, environment: Mapping[str, str]) -> list[str]:
    """Returns the lines of a job's script between its options and its program."""
    lines = ["set -e"]
    if settings.modules:
        lines += ["module purge", "module load " + shlex.join(settings.modules)]
    lines += settings.prologue or []
    lines += [f"export {key}={shlex.quote(value)}" for key, value in environment.items()]
    return lines

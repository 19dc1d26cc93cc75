"""Adapter for the Flux scheduler.

PSI/J is not used for Flux: it requires Flux's Python bindings, and ignores a job's folder, queue and account.
"""

import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from melissa_gen.launcher.backends.schedulers.base import (
    JobSpec,
    JobStatus,
    SubmitError,
    check_settings,
    is_plain,
    preamble,
    redirection,
)

__all__ = ["Flux"]

_COLUMNS = ("id.f58", "name", "state", "returncode", "t_remaining", "exception.type")
_SUPPORTED = {
    *("partition", "account", "constraint", "time", "nodes", "cpus_per_task", "gpus_per_task"),
    *("exclusive", "modules", "prologue", "container", "python", "launcher_arguments"),
    "directives",
}
_EXCEPTIONS = {"cancel": "it was canceled", "timeout": "it reached its time limit"}
_UNREACHABLE = re.compile(r"unable to connect|connection refused|host is down", re.I)


class Flux:
    """Adapter for Flux: jobs are submitted with `flux batch`, and their ranks are started with `flux run`."""

    name = "flux"

    def script(self, job: JobSpec) -> str:
        """Renders a batch script with its options in `# flux:` lines.

        Raises:
            StudyError: The job requests something that this back end does not support.
        """
        settings = job.settings
        check_settings(self.name, settings, _SUPPORTED)
        logged = is_plain(job.log)
        wanted: dict[str, object] = {
            "job-name": job.title,
            "output": job.log if logged else os.devnull,
            "nslots": job.processes,
            "cores-per-slot": settings.cpus_per_task,
            "gpus-per-slot": settings.gpus_per_task,
            "nodes": settings.nodes,
            "time-limit": None if settings.time is None else f"{settings.time:.0f}s",
            "queue": settings.partition,
            "bank": settings.account,
            "requires": settings.constraint,
        }
        options = [f"--{key}={shlex.quote(str(value))}" for key, value in wanted.items() if value]
        options += ["--exclusive"] if settings.exclusive else []
        options += settings.directives or []
        lines = ["#!/bin/bash -l" if settings.modules else "#!/bin/bash"]
        lines += [f"# flux: {option}" for option in options]
        lines += [] if logged else [redirection(job.log)]
        lines += [*preamble(settings, job.environment), f"cd {shlex.quote(str(job.folder))}"]
        each = {"cores-per-task": settings.cpus_per_task, "gpus-per-task": settings.gpus_per_task}
        words = ["flux", "run", f"--ntasks={job.processes}"]
        words += [f"--{key}={value}" for key, value in each.items() if value]
        words += ["-o", "gpu-affinity=per-task"] if settings.gpus_per_task else []
        words += [*(settings.launcher_arguments or ()), *(settings.container or ())]
        return "\n".join([*lines, "exec " + shlex.join([*words, *job.command])]) + "\n"

    def submit_command(self, script: Path, job: JobSpec) -> list[str]:
        """Renders the `flux batch` command."""
        return ["flux", "batch", str(script)]

    def job_id(self, output: str) -> str:
        """Parses the id, which starts with a florin sign, or with an f on terminals without Unicode."""
        found = re.search(r"^\s*[ƒf](\w+)", output)
        if found is None:
            raise ValueError(output)
        return f"f{found[1]}"

    def classify_submit_error(self, message: str) -> SubmitError:
        """Classifies the error message of a command."""
        if _UNREACHABLE.search(message):
            return "unreachable"
        return "limit" if re.search("limit|too many", message, re.I) else "rejected"

    def query_command(self, ids: Iterable[str]) -> list[str]:
        """Renders the `flux jobs` command for all jobs of this user, including those that have ended."""
        columns = "|".join(f"{{{column}}}" for column in _COLUMNS)
        return ["flux", "jobs", "-a", "--no-header", "--count=10000", f"--format={columns}"]

    def parse(self, output: str) -> dict[str, JobStatus]:
        """Parses columns that are separated by bars, which never occur in the names of the jobs."""
        found = {}
        for line in output.splitlines():
            number, *cells = line.strip().split("|")
            if len(cells) == len(_COLUMNS) - 1:
                found["f" + number[1:]] = _job_status(*cells)
        return found

    def history_command(self, job_id: str) -> list[str] | None:
        """Returns None; `flux jobs` lists all jobs of a Flux instance."""
        return None

    def parse_history(self, output: str) -> JobStatus | None:
        """Returns None; there is no history command."""
        return None

    def cancel_command(self, ids: Iterable[str], *, kill: bool) -> list[str]:
        """Renders the `flux cancel` command: Flux sends SIGTERM, and SIGKILL after its own timeout."""
        return ["flux", "cancel", *ids]


def _job_status(title: str, state: str, code: str, left: str, exception: str) -> JobStatus:
    if state in ("NEW", "DEPEND", "PRIORITY", "SCHED"):
        return JobStatus(title, "queued", why="" if state == "SCHED" else state.lower())
    if state in ("RUN", "CLEANUP"):
        try:
            seconds = float(left)
        except ValueError:
            seconds = 0.0
        return JobStatus(title, "running", seconds_left=seconds or None)
    status = int(code) if re.fullmatch(r"-?\d+", code) else 1
    why = _EXCEPTIONS.get(exception, f"Flux reports the exception {exception}" if exception else "")
    return JobStatus(title, "ended", status or (1 if why else 0), why)

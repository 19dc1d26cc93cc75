"""Flux: scripts, commands and answers as pure functions.

Not through PSI/J, which knows Flux by its Python bindings alone and drops a job's folder, queue and account there.
"""

import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from melissa_gen.launcher.backends.schedulers.base import (
    JobSpec,
    JobStatus,
    preamble,
    refuse_settings,
)

__all__ = ["Flux"]

_COLUMNS = ("id.f58", "name", "state", "returncode", "t_remaining", "exception.type")
_LEGAL = {
    *("partition", "account", "constraint", "time", "nodes", "cpus_per_task", "gpus_per_task"),
    *("exclusive", "modules", "prologue", "container", "python", "launcher_arguments"),
    "directives",
}
_WHY = {"cancel": "it was cancelled", "timeout": "it reached its time limit"}
_SILENT = re.compile(r"unable to connect|connection refused|host is down", re.I)


class Flux:
    """The language of Flux: a job is a `flux batch` script, its ranks are started by `flux run`."""

    name = "flux"

    def script(self, job: JobSpec) -> str:
        """Renders a batch script; its options are in `# flux:` lines.

        Raises:
            StudyError: The job asks for what this back end has no word for.
        """
        settings = job.settings
        refuse_settings(self.name, settings, _LEGAL)
        wanted: dict[str, object] = {
            "job-name": job.title,
            "output": job.log,
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
        lines += [*preamble(settings, job.environment), f"cd {shlex.quote(str(job.folder))}"]
        each = {"cores-per-task": settings.cpus_per_task, "gpus-per-task": settings.gpus_per_task}
        words = ["flux", "run", f"--ntasks={job.processes}"]
        words += [f"--{key}={value}" for key, value in each.items() if value]
        words += ["-o", "gpu-affinity=per-task"] if settings.gpus_per_task else []
        words += [*(settings.launcher_arguments or ()), *(settings.container or ())]
        return "\n".join([*lines, "exec " + shlex.join([*words, *job.command])]) + "\n"

    def submit_command(self, script: Path, job: JobSpec) -> list[str]:
        """Renders `flux batch`."""
        return ["flux", "batch", str(script)]

    def job_id(self, output: str) -> str:
        """Reads the id, which begins with a florin sign or, on a plain terminal, with an f."""
        found = re.search(r"^\s*[ƒf](\w+)", output)
        if found is None:
            raise ValueError(output)
        return f"f{found[1]}"

    def classify_submit_error(self, message: str) -> Literal["no", "silent", "limit"]:
        """Judges the words of a refusal."""
        if _SILENT.search(message):
            return "silent"
        return "limit" if re.search("limit|too many", message, re.I) else "no"

    def query_command(self, ids: Iterable[str]) -> list[str]:
        """Renders one `flux jobs` for all jobs of this user, those included that have ended."""
        columns = "|".join(f"{{{column}}}" for column in _COLUMNS)
        return ["flux", "jobs", "-a", "--no-header", "--count=10000", f"--format={columns}"]

    def parse(self, output: str) -> dict[str, JobStatus]:
        """Reads columns between bars; no name of ours has one."""
        found = {}
        for line in output.splitlines():
            number, *cells = line.strip().split("|")
            if len(cells) == len(_COLUMNS) - 1:
                found["f" + number[1:]] = _job_status(*cells)
        return found

    def history_command(self, job_id: str) -> list[str] | None:
        """Flux forgets no job of a session: there is nothing else to ask."""
        return None

    def parse_history(self, output: str) -> JobStatus | None:
        """There is no such answer."""
        return None

    def cancel_command(self, ids: Iterable[str], *, kill: bool) -> list[str]:
        """Renders `flux cancel`: SIGTERM, and SIGKILL when Flux finds it is time."""
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
    why = _WHY.get(exception, f"Flux calls it {exception}" if exception else "")
    return JobStatus(title, "ended", status or (1 if why else 0), why)

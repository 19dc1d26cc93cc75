"""SLURM: scripts, commands and answers as pure functions.

Spoken to directly: one `squeue` tells state, reason and time left of all jobs of a study, by which a preempted job, a
node that failed and a time limit are told apart.

Jobs are submitted with `--no-requeue`: there is one way in which a job is replaced, and that is the launcher's, so a
preempted job, or one whose node failed, ends.
"""

import getpass
import math
import re
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from melissa_gen.launcher.backends.schedulers.base import JobSpec, JobStatus, preamble
from melissa_gen.study import JobsSection

__all__ = ["Slurm", "clock_text", "seconds_of", "srun_command"]

_COLUMNS = {"JobID": 24, "Name": 64, "State": 24, "Reason": 64, "exit_code": 12, "TimeLeft": 24}
_WAITS = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"}
_RUNS = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
_WHY = {
    "CANCELLED": "it was cancelled",
    "TIMEOUT": "it reached its time limit",
    "DEADLINE": "it reached its deadline",
    "PREEMPTED": "it was preempted by another job",
    "NODE_FAIL": "a node of it failed",
    "BOOT_FAIL": "a node of it did not boot",
    "OUT_OF_MEMORY": "it ran out of memory",
    "REVOKED": "it was revoked",
}
_SILENT = re.compile(
    r"unable to contact|socket timed out|timed out|connection refused|connection reset|communication connection"
    r"|zero bytes were transmitted|temporarily unable|try again|not responding|connect failure|in standby",
    re.IGNORECASE,
)
_LIMIT = re.compile(r"limit|violates accounting|policy|quota|too many", re.IGNORECASE)
_NAMED_LIMIT = re.compile(r"\b(?:Assoc|QOS)\w+Limit\b|time limit is invalid", re.IGNORECASE)
_USUAL = {"Priority", "Resources", "BeginTime", "Prolog", "Cleaning"}
"""Reasons to wait that pass with time; "None" is none."""


class Slurm:
    """The language of SLURM."""

    name = "slurm"

    def script(self, job: JobSpec) -> str:
        """Renders a batch script."""
        wanted = {
            "job-name": job.title,
            "output": job.log,
            "open-mode": "append",
            "chdir": job.folder,
            "no-requeue": True,
            "ntasks": job.processes,
            **_options(job.settings),
        }
        lines = ["#!/bin/bash -l" if job.settings.modules else "#!/bin/bash"]
        lines += [f"#SBATCH {_option(key, value)}" for key, value in wanted.items() if value]
        lines += [f"#SBATCH {line}" for line in job.settings.directives or ()]
        lines += preamble(job.settings, job.environment)
        lines.append("exec " + shlex.join(srun_command(job)))
        return "\n".join(lines) + "\n"

    def submit_command(self, script: Path, job: JobSpec) -> list[str]:
        """Renders `sbatch`."""
        return ["sbatch", "--parsable", str(script)]

    def job_id(self, output: str) -> str:
        """Reads what `sbatch --parsable` printed: an id, and perhaps a cluster."""
        found = re.match(r"\s*(\d+)", output)
        if found is None:
            raise ValueError(output)
        return found[1]

    def classify_submit_error(self, message: str) -> Literal["no", "silent", "limit"]:
        """Judges the words of a refusal."""
        if _SILENT.search(message):
            return "silent"
        if named := _NAMED_LIMIT.search(
            message
        ):  # of all limits that on jobs in the queue alone passes
            return "limit" if "submitjob" in named[0].lower() else "no"
        return "limit" if _LIMIT.search(message) else "no"

    def query_command(self, ids: Iterable[str]) -> list[str]:
        """Renders one `squeue` for all jobs of this user, those included that ended a short time ago."""
        columns = ",".join(f"{name}:{width}" for name, width in _COLUMNS.items())
        return ["squeue", "-h", "-t", "all", "-u", getpass.getuser(), "-O", columns]

    def parse(self, output: str) -> dict[str, JobStatus]:
        """Reads columns of fixed widths."""
        found = {}
        for line in output.splitlines():
            cells, first = [], 0
            for width in _COLUMNS.values():
                cells.append(line[first : first + width].strip())
                first += width
            if len(cells[0]) and cells[0][0].isdigit():
                number, title, state, reason, code, left = cells
                found[number] = _job_status(title, state, reason, code, left)
        return found

    def history_command(self, job_id: str) -> list[str] | None:
        """Renders `sacct`, which many clusters do not have."""
        if shutil.which("sacct") is None:
            return None
        return ["sacct", "-n", "-P", "-j", job_id, "-o", "JobName,State,ExitCode"]

    def parse_history(self, output: str) -> JobStatus | None:
        """Reads the lines of `sacct`: the job, then its steps; None where it knows nothing.

        Where a signal ended the ranks, `srun` ends with 128 + signal. `sacct` drops the 128, but tells the signal of
        the step.
        """
        job, *steps = [line.split("|") for line in output.strip().splitlines()] or [[]]
        if len(job) != 3:
            return None
        title, state, code = job
        status, signal = code.split(":")[:2]
        if status != signal == "0" and ["0", status] in [step[-1].split(":") for step in steps]:
            code = f"{128 + int(status)}:0"
        seen = _job_status(title, state.split()[0], "", code, "")
        return seen if seen.state == "ended" else None

    def cancel_command(self, ids: Iterable[str], *, kill: bool) -> list[str]:
        """Renders `scancel`: SIGTERM, and SIGKILL after the cluster's KillWait; or SIGKILL to all processes."""
        return ["scancel", *(["--signal=KILL", "--full"] if kill else []), *ids]


def srun_command(job: JobSpec, *, step: bool = False) -> list[str]:
    """Renders the command that starts a job inside its job, or as one of several steps of an allocation.

    Without `--exact` each step would take all of the allocation; memory is shared unless the study divides it.

    Args:
        job: The job.
        step: Whether other jobs run in the same allocation.
    """
    settings = job.settings
    wanted: dict[str, object] = {"mpi": settings.mpi or "pmi2", "kill-on-bad-exit": 1}
    if step:
        mine = _options(settings)
        for key in (
            "partition",
            "account",
            "qos",
            "constraint",
            "reservation",
            "time",
            "exclusive",
        ):
            mine.pop(key, None)
        wanted |= {
            "exact": True,
            "job-name": job.title,
            "chdir": job.folder,
            "ntasks": job.processes,
            "mem": 0 if settings.memory_per_cpu is None else None,
            **{key: value for key, value in mine.items() if value},
        }
        if settings.het_group is not None:
            wanted["het-group"] = settings.het_group
        if settings.gpus_per_task is None and settings.gres is None:
            wanted["gres"] = "none"
    else:
        wanted["cpus-per-task"] = settings.cpus_per_task
    words = [_option(key, value) for key, value in wanted.items() if value is not None]
    hidden = []
    if settings.gpus_per_task is None and settings.gres is None:
        # SLURM takes the variable away from tasks that asked for no GPU, which then see all of the node's.
        value = job.environment.get("CUDA_VISIBLE_DEVICES")
        hidden = [] if value is None else ["env", f"CUDA_VISIBLE_DEVICES={value}"]
    return [
        "srun",
        *words,
        *(settings.launcher_arguments or ()),
        *hidden,
        *(settings.container or ()),
        *job.command,
    ]


def clock_text(seconds: float) -> str:
    """Returns a duration as SLURM reads it, in whole minutes or more: D-HH:MM:SS."""
    whole = math.ceil(seconds)
    days, rest = divmod(whole, 86_400)
    return f"{days}-{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"


def seconds_of(text: str) -> float | None:
    """Reads a duration as SLURM writes it; None for UNLIMITED and the like."""
    days, _, clock = text.rpartition("-")
    try:
        seconds = 0
        for part in clock.split(":"):
            seconds = 60 * seconds + int(part)
        return seconds + 86_400 * int(days or 0)
    except ValueError:
        return None


def _options(settings: JobsSection) -> dict[str, object]:
    """What `sbatch` and `srun` alike call what a job asks for."""
    size = {key: getattr(settings, key) for key in ("memory", "memory_per_cpu")}
    megabytes = {key: f"{max(1, value >> 20)}M" for key, value in size.items() if value}
    return {
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "reservation": settings.reservation,
        "time": None if settings.time is None else clock_text(settings.time),
        "nodes": settings.nodes,
        "ntasks-per-node": settings.tasks_per_node,
        "cpus-per-task": settings.cpus_per_task,
        "mem": megabytes.get("memory"),
        "mem-per-cpu": megabytes.get("memory_per_cpu"),
        "gpus-per-task": settings.gpus_per_task,
        "gres": settings.gres,
        "exclusive": settings.exclusive,
    }


def _option(key: str, value: object) -> str:
    return f"--{key}" if value is True else f"--{key}={value}"


def _job_status(title: str, state: str, reason: str, code: str, left: str) -> JobStatus:
    why = "" if reason in ("None", "(null)", "") else reason
    if state in _WAITS:
        return JobStatus(title, "queued", why=why, held=bool(why) and why not in _USUAL)
    if state in _RUNS:
        return JobStatus(title, "running", seconds_left=seconds_of(left))
    status = _exit_status(code)
    if state not in ("COMPLETED", "FAILED"):
        status = status or 1
        return JobStatus(title, "ended", status, _WHY.get(state, f"SLURM calls it {state}"))
    return JobStatus(title, "ended", status or (1 if state == "FAILED" else 0))


def _exit_status(text: str) -> int:
    """Reads a wait status (`squeue`: 1792) or status:signal (`sacct`: 7:0)."""
    if ":" in text:
        status, signal = (int(part) for part in text.split(":")[:2])
        return -signal if signal else status
    raw = int(text) if text.isdigit() else 0
    return -(raw & 127) if raw & 127 else raw >> 8

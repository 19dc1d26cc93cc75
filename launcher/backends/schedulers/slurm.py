"""Adapter for SLURM.

SLURM's own commands are used instead of PSI/J. One `squeue` command reports the state, the reason and the remaining
time of all jobs of a study, which distinguishes preempted jobs, node failures and time limits.

Jobs are submitted with `--no-requeue`, so a job that is preempted or whose node fails ends, and the launcher alone
decides whether it is replaced.
"""

import getpass
import math
import os
import re
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path

from melissa_gen.launcher.backends.schedulers.base import (
    JobSpec,
    JobStatus,
    SubmitError,
    is_plain,
    preamble,
    redirection,
)
from melissa_gen.study import JobsSection

__all__ = ["Slurm", "format_duration", "parse_duration", "srun_command"]

_COLUMNS = {"JobID": 24, "Name": 64, "State": 24, "Reason": 64, "exit_code": 12, "TimeLeft": 24}
_QUEUED_STATES = {
    "PENDING",
    "CONFIGURING",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "SPECIAL_EXIT",
}
_RUNNING_STATES = {
    "RUNNING",
    "COMPLETING",
    "SUSPENDED",
    "STOPPED",
    "SIGNALING",
    "STAGE_OUT",
    "RESIZING",
}
_END_REASONS = {
    "CANCELLED": "it was canceled",
    "TIMEOUT": "it reached its time limit",
    "DEADLINE": "it reached its deadline",
    "PREEMPTED": "it was preempted by another job",
    "NODE_FAIL": "one of its nodes failed",
    "BOOT_FAIL": "one of its nodes did not boot",
    "OUT_OF_MEMORY": "it ran out of memory",
    "REVOKED": "it was revoked",
}
_UNREACHABLE = re.compile(
    r"unable to contact|socket timed out|timed out|connection refused|connection reset|communication connection"
    r"|zero bytes were transmitted|temporarily unable|try again|not responding|connect failure|in standby",
    re.IGNORECASE,
)
_LIMIT = re.compile(r"limit|violates accounting|policy|quota|too many", re.IGNORECASE)
_NAMED_LIMIT = re.compile(r"\b(?:Assoc|QOS)\w+Limit\b|time limit is invalid", re.IGNORECASE)
_TRANSIENT_REASONS = {"Priority", "Resources", "BeginTime", "Prolog", "Cleaning"}
"""Reasons of waiting that resolve themselves with time."""


class Slurm:
    """Adapter for SLURM."""

    name = "slurm"

    def script(self, job: JobSpec) -> str:
        """Renders a batch script with its options in `#SBATCH` lines.

        A path that such a line can't hold as it is, is used in the script itself.
        """
        logged, placed = is_plain(job.log), is_plain(job.folder)
        wanted = {
            "job-name": job.title,
            "output": job.log if logged else os.devnull,
            "open-mode": "append",
            "chdir": job.folder if placed else "/",
            "no-requeue": True,
            "ntasks": job.processes,
            **_options(job.settings),
        }
        lines = ["#!/bin/bash -l" if job.settings.modules else "#!/bin/bash"]
        lines += [
            f"#SBATCH {_quoted(_option(key, value))}" for key, value in wanted.items() if value
        ]
        lines += [f"#SBATCH {line}" for line in job.settings.directives or ()]
        lines += [] if logged else [redirection(job.log)]
        lines += [] if placed else [f"cd {shlex.quote(str(job.folder))} || exit"]
        lines += preamble(job.settings, job.environment)
        lines.append("exec " + shlex.join(srun_command(job)))
        return "\n".join(lines) + "\n"

    def submit_command(self, script: Path, job: JobSpec) -> list[str]:
        """Renders the `sbatch` command."""
        return ["sbatch", "--parsable", str(script)]

    def job_id(self, output: str) -> str:
        """Parses the output of `sbatch --parsable`, which is an id, optionally followed by the name of a cluster."""
        found = re.match(r"\s*(\d+)", output)
        if found is None:
            raise ValueError(output)
        return found[1]

    def classify_submit_error(self, message: str) -> SubmitError:
        """Classifies the error message of a command."""
        if _UNREACHABLE.search(message):
            return "unreachable"
        if named := _NAMED_LIMIT.search(message):
            # Of the named limits, only the one on the number of submitted jobs can be met by waiting.
            return "limit" if "submitjob" in named[0].lower() else "rejected"
        return "limit" if _LIMIT.search(message) else "rejected"

    def query_command(self, ids: Iterable[str]) -> list[str]:
        """Renders the `squeue` command for all jobs of this user, including those that ended recently."""
        columns = ",".join(f"{name}:{width}" for name, width in _COLUMNS.items())
        return ["squeue", "-h", "-t", "all", "-u", getpass.getuser(), "-O", columns]

    def parse(self, output: str) -> dict[str, JobStatus]:
        """Parses columns of fixed width."""
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
        """Renders the `sacct` command; None if it is not installed, as on many clusters."""
        if shutil.which("sacct") is None:
            return None
        return ["sacct", "-n", "-P", "-j", job_id, "-o", "JobName,State,ExitCode"]

    def parse_history(self, output: str) -> JobStatus | None:
        """Parses the output of `sacct`: one line for the job, then one for each of its steps.

        If a signal ended the ranks, `srun` exits with 128 + signal. `sacct` omits the 128 for the job, but reports the
        signal for the step, from which the exit status is restored.

        Returns:
            The status; None if `sacct` does not list the job or the job has not ended.
        """
        job, *steps = [line.split("|") for line in output.strip().splitlines()] or [[]]
        if len(job) != 3:
            return None
        title, state, code = job
        status, signal = code.split(":")[:2]
        if status != signal == "0" and ["0", status] in [step[-1].split(":") for step in steps]:
            code = f"{128 + int(status)}:0"
        found = _job_status(title, state.split()[0], "", code, "")
        return found if found.state == "ended" else None

    def cancel_command(self, ids: Iterable[str], *, kill: bool) -> list[str]:
        """Renders the `scancel` command.

        Without `kill`, SLURM sends SIGTERM, and SIGKILL after the cluster's KillWait; with `kill`, it sends SIGKILL to
        all processes of the jobs.
        """
        return ["scancel", *(["--signal=KILL", "--full"] if kill else []), *ids]


def srun_command(job: JobSpec, *, step: bool = False) -> list[str]:
    """Renders the `srun` command that starts the ranks of a job.

    In an allocation that is shared with other jobs, `--exact` is set; without it each step would take the whole
    allocation. The steps share the memory unless the study sets `memory_per_cpu`.

    Args:
        job: The job.
        step: Whether other jobs run in the same allocation.
    """
    settings = job.settings
    wanted: dict[str, object] = {"mpi": settings.mpi or "pmi2", "kill-on-bad-exit": 1}
    if step:
        options = _options(settings)
        for key in (
            "partition",
            "account",
            "qos",
            "constraint",
            "reservation",
            "time",
            "exclusive",
        ):
            options.pop(key, None)
        wanted |= {
            "exact": True,
            "job-name": job.title,
            "chdir": job.folder,
            "ntasks": job.processes,
            "mem": 0 if settings.memory_per_cpu is None else None,
            **{key: value for key, value in options.items() if value},
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
        # SLURM removes this variable from tasks that requested no GPU, and they could then use all GPUs of the node.
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


def format_duration(seconds: float) -> str:
    """Formats a duration in seconds as D-HH:MM:SS, rounded up to a whole second."""
    whole = math.ceil(seconds)
    days, rest = divmod(whole, 86_400)
    return f"{days}-{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"


def parse_duration(text: str) -> float | None:
    """Parses a duration as printed by SLURM into seconds; None if it is not a number, such as UNLIMITED."""
    days, _, clock = text.rpartition("-")
    try:
        seconds = 0
        for part in clock.split(":"):
            seconds = 60 * seconds + int(part)
        return seconds + 86_400 * int(days or 0)
    except ValueError:
        return None


def _options(settings: JobsSection) -> dict[str, object]:
    """Returns the requested resources as options that `sbatch` and `srun` have in common."""
    size = {key: getattr(settings, key) for key in ("memory", "memory_per_cpu")}
    megabytes = {key: f"{max(1, value >> 20)}M" for key, value in size.items() if value}
    return {
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "reservation": settings.reservation,
        "time": None if settings.time is None else format_duration(settings.time),
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


def _quoted(option: str) -> str:
    """Quotes an option for a `#SBATCH` line, where blanks end an option and `#` starts a comment."""
    return re.sub(r"([\s\\'\"#])", r"\\\1", option)


def _job_status(title: str, state: str, reason: str, code: str, left: str) -> JobStatus:
    why = "" if reason in ("None", "(null)", "") else reason
    if state in _QUEUED_STATES:
        return JobStatus(title, "queued", why=why, held=bool(why) and why not in _TRANSIENT_REASONS)
    if state in _RUNNING_STATES:
        return JobStatus(title, "running", seconds_left=parse_duration(left))
    status = _exit_status(code)
    if state not in ("COMPLETED", "FAILED"):
        status = status or 1
        return JobStatus(
            title, "ended", status, _END_REASONS.get(state, f"SLURM reports the state {state}")
        )
    return JobStatus(title, "ended", status or (1 if state == "FAILED" else 0))


def _exit_status(text: str) -> int:
    """Parses a wait status (1792, from `squeue`) or a pair status:signal (7:0, from `sacct`)."""
    if ":" in text:
        status, signal = (int(part) for part in text.split(":")[:2])
        return -signal if signal else status
    raw = int(text) if text.isdigit() else 0
    return -(raw & 127) if raw & 127 else raw >> 8

"""The back end for a SLURM allocation, which starts each MPI job as a job step with `srun`."""

import os
import re
import shlex
import subprocess
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from melissa_gen.errors import RunError
from melissa_gen.launcher.backends.base import MpiJob
from melissa_gen.launcher.backends.local import LocalBackend
from melissa_gen.launcher.backends.mpirun import clean_environment
from melissa_gen.launcher.backends.schedulers.base import JobSpec, job_spec, preamble
from melissa_gen.launcher.backends.schedulers.slurm import parse_duration, srun_command
from melissa_gen.study import JobsSection

__all__ = ["AllocationBackend", "cpus_of", "step_script"]

# Variables that describe the allocation to `srun`. All other SLURM_ variables are removed from the environment: they
# describe the launcher's own step, or srun would read them as options of the new step.
_ALLOCATION_VARIABLES = re.compile(
    r"SLURM_(CONF|CLUSTERS|JOB_?ID|JOB_NODELIST|NODELIST|JOB_NUM_NODES|NNODES|JOB_PARTITION|HET_\w+"
    r"|JOB_ID_HET_GROUP_\d+|JOB_NODELIST_HET_GROUP_\d+|JOB_CPUS_PER_NODE(_HET_GROUP_\d+)?)$"
)
_COMMAND_TIMEOUT = 10.0


class AllocationBackend(LocalBackend):
    """Runs jobs side by side in the allocation that the launcher runs in.

    Args:
        folder: Working directory of the jobs.
        logs: Folder for log files and scripts, on a file system that all nodes share.
        settings: Requested resources by name of the job; the key "" applies to all other jobs.

    Raises:
        RunError: The launcher does not run inside an allocation.
    """

    def __init__(self, folder: Path, logs: Path, settings: Mapping[str, JobsSection]) -> None:
        self.job = os.environ.get("SLURM_JOB_ID", "")
        if not self.job:
            msg = (
                "launcher.mode is allocation, but melissa-gen does not run in one (SLURM_JOB_ID is not set); "
                "submit slurm/study.sbatch, or set launcher.mode=jobs"
            )
            raise RunError(msg)
        super().__init__("srun", folder, logs, implementation="other")
        self._settings = settings
        self._titles: dict[str, str] = {}
        left = parse_duration(
            _run_command("squeue", "-h", "-j", self.job, "-o", "%L").partition("\n")[0]
        )
        self._ends = None if left is None else time.monotonic() + left

    def seconds_left(self, name: str) -> float | None:
        """Returns the seconds until the allocation and all of its jobs end; None if unknown."""
        return None if self._ends is None else self._ends - time.monotonic()

    def kill(self, name: str) -> None:
        """Kills every process of a job on all of its nodes."""
        if name in self._running:
            self._cancel([name])
        super().kill(name)

    def kill_all(self) -> None:
        """Kills every process of every job on all nodes."""
        if self._running:
            self._cancel(self._running)
        super().kill_all()

    def _cancel(self, names: Iterable[str]) -> None:
        """Cancels the steps of jobs: a kill of `srun` on this node may leave processes on the others."""
        titles, steps = {self._titles[name] for name in names}, []
        listed = _run_command("squeue", "-h", "-s", "-j", self.job, "-o", "%i %j")
        for line in listed.splitlines():
            step, _, title = line.strip().partition(" ")
            steps += [step] if title in titles else []
        if steps:
            _run_command("scancel", "--signal=KILL", *steps)

    def _command_line(
        self, name: str, command: tuple[str, ...], processes: int, environment: Mapping[str, str]
    ) -> list[str]:
        job = MpiJob(name, command, processes, environment)
        settings = self._settings.get(name, self._settings[""])
        spec = job_spec(job, uuid.uuid4().hex[:6], self.logs, self.folder, settings)
        self._titles[name] = spec.title
        path = self.logs / f"{name}.sh"
        path.write_text(step_script(spec), encoding="utf-8")
        return ["bash", *(["-l"] if settings.modules else []), str(path)]

    def _environment(self) -> dict[str, str]:
        clean = clean_environment(os.environ)
        return {
            k: v for k, v in clean.items() if k[:5] != "SLURM" or _ALLOCATION_VARIABLES.match(k)
        }


def step_script(job: JobSpec) -> str:
    """Renders the script that starts a job as a step of this allocation."""
    lines = ["#!/bin/bash", *preamble(job.settings, job.environment)]
    lines.append("exec " + shlex.join(srun_command(job, step=True)))
    return "\n".join(lines) + "\n"


def cpus_of(environment: Mapping[str, str]) -> int:
    """Returns the number of CPUs of an allocation; 0 if the environment does not say.

    Example:
        >>> cpus_of({"SLURM_JOB_CPUS_PER_NODE": "16(x2),8"})
        40
    """
    total = 0
    for part in environment.get("SLURM_JOB_CPUS_PER_NODE", "").split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        total += int(found[1]) * int(found[2] or 1) if found else 0
    return total


def _run_command(*command: str) -> str:
    """Runs a SLURM command and returns its output; "" if it fails or times out."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""

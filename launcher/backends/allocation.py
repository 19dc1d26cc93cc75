"""The back end inside a SLURM allocation: each MPI job is a step, started by `srun` on its share of the nodes."""

import os
import re
import shlex
import subprocess
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from melissa_gen.errors import RunError
from melissa_gen.launcher.backends.base import MpiJob
from melissa_gen.launcher.backends.local import LocalBackend
from melissa_gen.launcher.backends.mpirun import clean_environment
from melissa_gen.launcher.backends.schedulers.base import JobSpec, job_spec, preamble
from melissa_gen.launcher.backends.schedulers.slurm import seconds_of, srun_command
from melissa_gen.study import JobsSection

__all__ = ["AllocationBackend", "cpus_of", "step_script"]

# What describes this allocation to `srun`; all else that begins with SLURM_ describes the launcher's own step, or
# would be taken for a request of the next one.
_ALLOCATION = re.compile(
    r"SLURM_(CONF|CLUSTERS|JOB_?ID|JOB_NODELIST|NODELIST|JOB_NUM_NODES|NNODES|JOB_PARTITION|HET_\w+"
    r"|JOB_ID_HET_GROUP_\d+|JOB_NODELIST_HET_GROUP_\d+|JOB_CPUS_PER_NODE(_HET_GROUP_\d+)?)$"
)
_ASK_SECONDS = 10.0


class AllocationBackend(LocalBackend):
    """Places jobs side by side in the allocation that the launcher runs in.

    Args:
        folder: The jobs' working directory.
        logs: Folder of their log files and scripts, on a disk that all nodes share.
        settings: What each job asks for, by name; "" for all others.

    Raises:
        RunError: There is no allocation.
    """

    def __init__(self, folder: Path, logs: Path, settings: Mapping[str, JobsSection]) -> None:
        self.job = os.environ.get("SLURM_JOB_ID", "")
        if not self.job:
            msg = (
                "launcher.mode is allocation, but this is not inside one (SLURM_JOB_ID is not set); "
                "submit slurm/study.sbatch, or set launcher.mode=jobs"
            )
            raise RunError(msg)
        super().__init__("srun", folder, logs, implementation="other")
        self._settings = settings
        self._titles: dict[str, str] = {}
        left = seconds_of(_ask("squeue", "-h", "-j", self.job, "-o", "%L").partition("\n")[0])
        self._ends = None if left is None else time.monotonic() + left

    def seconds_left(self, name: str) -> float | None:
        """Returns in how many seconds the allocation ends, and all jobs with it."""
        return None if self._ends is None else self._ends - time.monotonic()

    def kill(self, name: str) -> None:
        """Ends every process of a job on all its nodes."""
        if name in self._running:
            title, steps = self._titles[name], []
            for line in _ask("squeue", "-h", "-s", "-j", self.job, "-o", "%i %j").splitlines():
                step, _, its_name = line.strip().partition(" ")
                steps += [step] if its_name == title else []
            if steps:
                _ask("scancel", "--signal=KILL", *steps)
        super().kill(name)

    def _line(
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
        return {k: v for k, v in clean.items() if k[:5] != "SLURM" or _ALLOCATION.match(k)}


def step_script(job: JobSpec) -> str:
    """Renders the script that starts a job as a step of this allocation."""
    lines = ["#!/bin/bash", *preamble(job.settings, job.environment)]
    lines.append("exec " + shlex.join(srun_command(job, step=True)))
    return "\n".join(lines) + "\n"


def cpus_of(environment: Mapping[str, str]) -> int:
    """Returns how many CPUs an allocation has; 0 where it does not say.

    Example:
        >>> cpus_of({"SLURM_JOB_CPUS_PER_NODE": "16(x2),8"})
        40
    """
    total = 0
    for part in environment.get("SLURM_JOB_CPUS_PER_NODE", "").split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        total += int(found[1]) * int(found[2] or 1) if found else 0
    return total


def _ask(*command: str) -> str:
    """Asks SLURM something; "" where it does not answer."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_ASK_SECONDS,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""

"""Finds `mpirun`, and renders the command line and the environment that start an MPI job on this machine."""

import functools
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from melissa_gen.errors import RunError, StudyError
from melissa_gen.mpi_environment import without_mpi_variables

__all__ = [
    "JOB_TAG",
    "MpiImplementation",
    "MpirunOptions",
    "clean_environment",
    "detect_implementation",
    "find_mpirun",
    "mpirun_command",
    "resolve_command",
]

MpiImplementation = Literal["hydra", "openmpi", "other"]

JOB_TAG = "MELISSA_GEN_MPI_JOB"
"""Environment variable that identifies the processes of a local MPI job."""


@dataclass(frozen=True)
class MpirunOptions:
    """Options of `mpirun_command`.

    Attributes:
        mpirun: Path of `mpirun`.
        implementation: The MPI implementation that it belongs to.
        processes: Number of ranks. A single rank is started through mpirun too, so that all jobs end in the same way.
        command: Executable and arguments of each rank.
    """

    mpirun: str
    implementation: MpiImplementation
    processes: int
    command: tuple[str, ...]


def mpirun_command(options: MpirunOptions) -> list[str]:
    """Renders the command line that starts a job on this machine.

    Ranks are not bound to cores: several jobs share the machine, and each would be bound to the same first cores.

    Example:
        >>> mpirun_command(MpirunOptions("mpirun", "hydra", 2, ("./solver", "in.txt")))
        ['mpirun', '-launcher', 'fork', '-rmk', 'user', '-n', '2', './solver', 'in.txt']
    """
    flags: dict[MpiImplementation, list[str]] = {
        # Start the ranks on this machine, even inside a scheduler's allocation.
        "hydra": ["-launcher", "fork", "-rmk", "user"],
        "openmpi": ["--oversubscribe", "--bind-to", "none"],
        "other": [],
    }
    command = options.command
    if ":" in command:
        # mpirun would read this argument as the separator between two programs.
        command = ("/bin/sh", "-c", f"exec {shlex.join(command)}")
    return [
        options.mpirun,
        *flags[options.implementation],
        "-n",
        str(options.processes),
        *command,
    ]


def clean_environment(
    environment: Mapping[str, str], implementation: MpiImplementation = "hydra"
) -> dict[str, str]:
    """Returns an environment for a new MPI job, without the variables of the MPI job of this process.

    Args:
        environment: The environment to copy, usually `os.environ`.
        implementation: The MPI implementation. For Open MPI, variables are added that permit running as root and
            starting more ranks than cores.
    """
    clean = without_mpi_variables(environment, openmpi=implementation == "openmpi")
    # This process may itself run inside a job of another launcher, whose tag must not be inherited.
    clean.pop(JOB_TAG, None)
    return clean


def resolve_command(
    command: Sequence[str], folder: Path, python: str | None = None
) -> tuple[str, ...]:
    """Returns a simulation's command with absolute paths of the executable and of a Python script.

    Args:
        command: `simulation.command` of the study.
        folder: Folder of the study file, to which relative paths refer.
        python: Interpreter that replaces `python` in the command; default: the current interpreter.

    Raises:
        StudyError: The executable or the Python script does not exist.
    """
    first, *rest = command
    if first in ("python", "python3"):
        script = rest[0] if rest else ""
        if script and not script.startswith("-"):
            path = folder / script
            if not path.is_file():
                msg = f"simulation.command: there is no script '{script}' in {folder}"
                raise StudyError(msg)
            rest[0] = str(path)
        return (python or sys.executable, *rest)
    if "/" in first or (folder / first).is_file():
        path = folder / first
        if not path.is_file():
            msg = f"simulation.command: there is no executable '{first}' in {folder}"
            raise StudyError(msg)
        if not os.access(path, os.X_OK):
            msg = f"simulation.command: '{first}' in {folder} is not executable; chmod +x {path}"
            raise StudyError(msg)
        return (str(path), *rest)
    found = shutil.which(first)
    if found is None:
        msg = f"simulation.command: there is no executable '{first}' in {folder} or on PATH"
        raise StudyError(msg)
    return (found, *rest)


def find_mpirun(wanted: str | None = None) -> str:
    """Returns the mpirun to use: the study's, else the one next to the interpreter, else the first one on PATH.

    Args:
        wanted: `launcher.mpirun` of the study: a path, or a name to look up on PATH.

    Raises:
        StudyError: The study's mpirun does not exist.
        RunError: The study names no mpirun, and none was found.
    """
    if wanted is not None:
        found = shutil.which(wanted)
        if found is None:
            msg = f"launcher.mpirun: there is no executable '{wanted}'"
            raise StudyError(msg)
        return found
    beside = Path(sys.executable).parent / "mpirun"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("mpirun")
    if found is None:
        msg = (
            "there is no mpirun next to the Python interpreter or on PATH; "
            "install one with: pip install 'melissa-gen[mpi]'"
        )
        raise RunError(msg)
    return found


@functools.cache
def detect_implementation(mpirun: str) -> MpiImplementation:
    """Detects the MPI implementation from the output of `mpirun --version`.

    Raises:
        RunError: The command does not run.
    """
    try:
        text = subprocess.run(
            [mpirun, "--version"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            stdin=subprocess.DEVNULL,
            env=clean_environment(os.environ),
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        msg = f"can't run {mpirun}: {error}"
        raise RunError(msg) from None
    if "HYDRA" in text or "Intel" in text:
        return "hydra"
    return "openmpi" if "Open MPI" in text or "PRRTE" in text or "OpenRTE" in text else "other"

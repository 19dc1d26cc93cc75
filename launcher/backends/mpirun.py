"""How an MPI job is started: the command line, its environment, and where `mpirun` is. Pure but for the finding."""

import functools
import os
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
    "MpiImplementation",
    "MpirunOptions",
    "clean_environment",
    "detect_implementation",
    "find_mpirun",
    "mpirun_command",
    "resolve_command",
]

MpiImplementation = Literal["hydra", "openmpi", "other"]


@dataclass(frozen=True)
class MpirunOptions:
    """What `mpirun_command` needs to know.

    Attributes:
        mpirun: Path of the launcher.
        implementation: Whose launcher it is.
        processes: Ranks; one rank goes through mpirun too, so that every job ends in the same way.
        command: Executable and arguments of each rank.
    """

    mpirun: str
    implementation: MpiImplementation
    processes: int
    command: tuple[str, ...]


def mpirun_command(options: MpirunOptions) -> list[str]:
    """Renders the command line that starts a job on this machine.

    Several jobs share the machine, so none is bound to cores: each would bind to the same first ones.

    Example:
        >>> mpirun_command(MpirunOptions("mpirun", "hydra", 2, ("./solver", "in.txt")))
        ['mpirun', '-launcher', 'fork', '-rmk', 'user', '-n', '2', './solver', 'in.txt']
    """
    flags: dict[MpiImplementation, list[str]] = {
        "hydra": ["-launcher", "fork", "-rmk", "user"],  # this machine, even inside an allocation
        "openmpi": ["--oversubscribe", "--bind-to", "none"],
        "other": [],
    }
    return [
        options.mpirun,
        *flags[options.implementation],
        "-n",
        str(options.processes),
        *options.command,
    ]


def clean_environment(
    environment: Mapping[str, str], implementation: MpiImplementation = "hydra"
) -> dict[str, str]:
    """Returns an environment in which a new MPI job does not take itself for a part of another.

    Args:
        environment: Usually `os.environ`.
        implementation: Open MPI's launcher refuses root, and gets the leave that it asks for.
    """
    clean = without_mpi_variables(environment, openmpi=implementation == "openmpi")
    clean.pop("MELISSA_GEN_WORLD", None)  # the mark of the job that this process is in, if any
    return clean


def resolve_command(
    command: Sequence[str], folder: Path, python: str | None = None
) -> tuple[str, ...]:
    """Returns a simulation's command with `python` and relative paths made absolute.

    Args:
        command: `simulation.command` of the study.
        folder: The study file's folder, from which relative paths start.
        python: What stands for `python`; default: the interpreter that runs this.

    Raises:
        StudyError: The executable, or the script that Python is to run, is not there.
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
    """Returns the mpirun to use: the study's, else the one beside the interpreter, else the first on PATH.

    Raises:
        RunError: There is none.
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
            "no mpirun beside the Python interpreter or on PATH; "
            "install one with: pip install 'melissa-gen[mpi]'"
        )
        raise RunError(msg)
    return found


@functools.cache
def detect_implementation(mpirun: str) -> MpiImplementation:
    """Asks an mpirun whose it is."""
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
        msg = f"{mpirun} does not run: {error}"
        raise RunError(msg) from None
    if "HYDRA" in text or "Intel" in text:
        return "hydra"
    return "openmpi" if "Open MPI" in text or "PRRTE" in text or "OpenRTE" in text else "other"

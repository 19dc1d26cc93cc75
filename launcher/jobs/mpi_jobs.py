"""The MPI jobs of a study: the server and the clients, with their commands and environments."""

import sys
from pathlib import Path

from melissa_gen.builders.memory import allocator
from melissa_gen.launcher.backends.base import MpiJob
from melissa_gen.launcher.backends.bridge_command import bridge_command
from melissa_gen.launcher.backends.mpirun import resolve_command
from melissa_gen.logs import level_environment
from melissa_gen.study import JobsSection, Study

__all__ = ["SERVER", "client_environment", "client_mpi_job", "server_mpi_job", "solver_command"]

SERVER = "server"
"""Name of the server's job."""


def server_mpi_job(study: Study, run_dir: Path) -> MpiJob:
    """Returns the server's MPI job."""
    python = _python(study.launcher.server_job) or sys.executable
    # -P: a file of the study's folder must not shadow a module that the server imports.
    command = (python, "-P", "-m", "melissa_gen.server", str(run_dir))
    environment = {"OMP_NUM_THREADS": str(study.server.threads)}
    environment |= allocator(over_tcp=study.over_tcp) | level_environment()
    return MpiJob(SERVER, command, study.server.ranks, environment)


def client_mpi_job(study: Study, contact: Path, job: str, simulation: int | None = None) -> MpiJob:
    """Returns the job of a client job.

    Args:
        study: The study.
        contact: The server's contact file.
        job: Name of the job.
        simulation: The one to solve, where each has a job of its own.
    """
    environment = client_environment(study) | level_environment()
    environment |= {"MELISSA_GEN_SERVER": str(contact), "MELISSA_GEN_JOB": job}
    if simulation is not None:
        environment["MELISSA_GEN_SIMULATION"] = str(simulation)
    command = solver_command(study, contact.parent)
    return MpiJob(job, command, study.simulation.processes, environment)


def solver_command(study: Study, folder: Path | None = None) -> tuple[str, ...]:
    """Returns what each rank of a client executes, with absolute paths: the simulation's command, or the bridge.

    Args:
        study: The study.
        folder: Where a bridge's job file and the folders of its simulations go; None only checks that all is there.

    Raises:
        StudyError: The executable, an input or the reader is not there, or a template does not fit the parameters.
    """
    python = _python(study.launcher.client_job)
    command = resolve_command(study.simulation.command, study.folder, python)
    if study.simulation.bridge is None:
        return command
    return bridge_command(study, command, python or sys.executable, folder)


def _python(job: JobsSection) -> str | None:
    """The Python of a job; None: this one. A container has its own."""
    return job.python or ("python3" if job.container else None)


def client_environment(study: Study) -> dict[str, str]:
    """Returns what every solver gets: the study's variables, and no GPU unless its job asks for one."""
    job = study.launcher.client_job
    hidden = {} if job.gpus_per_task or job.gres else {"CUDA_VISIBLE_DEVICES": ""}
    return hidden | study.simulation.environment

"""Describes the MPI jobs of a study: the commands and environments of the server and the clients."""

import sys
from pathlib import Path

from melissa_gen.builders.memory import allocator
from melissa_gen.errors import StudyError
from melissa_gen.launcher.backends.base import SERVER, MpiJob
from melissa_gen.launcher.backends.mpirun import resolve_command
from melissa_gen.logs import level_environment
from melissa_gen.study import JobsSection, Study

__all__ = ["client_environment", "client_mpi_job", "server_mpi_job", "solver_command"]


def server_mpi_job(study: Study, run_dir: Path) -> MpiJob:
    """Returns the server's MPI job."""
    python = _python(study.launcher.server_job) or sys.executable
    # -P keeps files in the study's folder from shadowing modules that the server imports.
    command = (python, "-P", "-m", "melissa_gen.server", str(run_dir))
    environment = {"OMP_NUM_THREADS": str(study.server.threads)}
    environment |= allocator(over_tcp=study.over_tcp) | level_environment()
    return MpiJob(SERVER, command, study.server.ranks, environment)


def client_mpi_job(study: Study, contact: Path, job: str, simulation: int | None = None) -> MpiJob:
    """Returns the MPI job of a client.

    Args:
        study: The study.
        contact: The server's contact file.
        job: Name of the job.
        simulation: The simulation to run, if each simulation has its own job; else None.
    """
    environment = client_environment(study) | level_environment()
    environment |= {"MELISSA_GEN_SERVER": str(contact), "MELISSA_GEN_JOB": job}
    if simulation is not None:
        environment["MELISSA_GEN_SIMULATION"] = str(simulation)
    command = solver_command(study, contact.parent)
    return MpiJob(job, command, study.simulation.processes, environment)


def solver_command(study: Study, folder: Path | None = None) -> tuple[str, ...]:
    """Returns the command of each rank of a client: the simulation's command or the bridge, with absolute paths.

    Args:
        study: The study.
        folder: Folder for the bridge's job file and the folders of its simulations; None writes nothing and only
            checks that all inputs exist.

    Raises:
        StudyError: The executable, an input or the reader does not exist, or a template does not match the parameters.
    """
    if not study.simulation.command:
        message = (
            "simulation.command is missing, so that no solver can run; train the network by its equation alone with "
            "melissa-gen train STUDY"
        )
        raise StudyError(message)
    python = _python(study.launcher.client_job)
    command = resolve_command(study.simulation.command, study.folder, python)
    if study.simulation.bridge is None:
        return command
    # Imported here because templates and readers are needed by the bridge alone.
    from melissa_gen.launcher.backends.bridge_command import bridge_command

    return bridge_command(study, command, python or sys.executable, folder)


def _python(job: JobsSection) -> str | None:
    """Returns the Python interpreter of a job; None for the current one. A container has its own interpreter."""
    return job.python or ("python3" if job.container else None)


def client_environment(study: Study) -> dict[str, str]:
    """Returns the environment variables of every solver; GPUs are hidden unless the client job requests them."""
    job = study.launcher.client_job
    hidden = {} if job.gpus_per_task or job.gres else {"CUDA_VISIBLE_DEVICES": ""}
    return hidden | study.simulation.environment

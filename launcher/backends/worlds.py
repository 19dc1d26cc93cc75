"""The MPI worlds of a study, server and clients, and the back end that the study names for them."""

import os
import shutil
import sys
from pathlib import Path

from melissa_gen.builders.memory import allocator
from melissa_gen.errors import RunError, StudyError
from melissa_gen.launcher.backends.allocation import AllocationBackend, cpus_of
from melissa_gen.launcher.backends.base import Backend, World
from melissa_gen.launcher.backends.batch import BatchBackend
from melissa_gen.launcher.backends.bridge_command import bridge_command
from melissa_gen.launcher.backends.local import LocalBackend
from melissa_gen.launcher.backends.mpirun import find_mpirun, flavour_of, resolve_command
from melissa_gen.launcher.backends.schedulers.base import Scheduler, job_spec
from melissa_gen.launcher.backends.schedulers.flux import Flux
from melissa_gen.launcher.backends.schedulers.oar import Oar
from melissa_gen.launcher.backends.schedulers.psij import Psij
from melissa_gen.launcher.backends.schedulers.slurm import Slurm
from melissa_gen.logs import level_environment
from melissa_gen.study import JobsSection, Study

__all__ = [
    "check_backend",
    "client_environment",
    "client_world",
    "make_backend",
    "scheduler_of",
    "server_world",
    "solver_command",
]

SERVER = "server"
_SUBMIT = {
    **{"slurm": "sbatch", "psij_slurm": "sbatch", "oar": "oarsub"},
    **{"pbs": "qsub", "lsf": "bsub", "flux": "flux"},
}


def check_backend(study: Study) -> None:
    """Looks whether what the back end needs is here.

    Raises:
        StudyError: The study asks for more than there is.
        RunError: Something is missing.
    """
    launcher = study.launcher
    if launcher.backend == "local":
        find_mpirun(launcher.mpirun)
        return
    command = "srun" if launcher.mode == "allocation" else _SUBMIT[launcher.backend]
    if shutil.which(command) is None:
        msg = f"launcher.backend is {launcher.backend}, but there is no {command} on PATH here"
        raise RunError(msg)
    if launcher.mode == "allocation":
        _check_room(study)
        return
    scheduler, folder = scheduler_of(study, Path("/")), study.folder
    server = World(SERVER, (), study.server.ranks, {})
    client = World("clients", (), study.simulation.processes, {})
    for world, settings in ((server, launcher.server_job), (client, launcher.client_job)):
        scheduler.script(job_spec(world, "", Path("/"), folder, settings))


def _check_room(study: Study) -> None:
    """All worlds must fit into the allocation at once: a step that does not waits for another's end."""
    server, client = study.launcher.server_job, study.launcher.client_job
    there = cpus_of(os.environ)
    if not there or server.het_group is not None or client.het_group is not None:
        return
    left = there - study.server.ranks * (server.cpus_per_task or 1)
    each = study.simulation.processes * (client.cpus_per_task or 1)
    if study.launcher.clients * each > left:
        msg = (
            f"launcher.clients {study.launcher.clients} do not fit: this allocation has {there} CPUs, the server "
            f"takes {there - left} and each client {each}; at most {max(0, left // each)} is legal"
        )
        raise StudyError(msg)


def make_backend(study: Study, logs: Path) -> Backend:
    """Makes the back end of `launcher.backend` and `launcher.mode`.

    Args:
        study: The study.
        logs: Folder for logs; with a scheduler, on a disk that all nodes share.

    Raises:
        RunError: There is no mpirun, or there is no allocation to be in.
    """
    launcher = study.launcher
    settings = {SERVER: launcher.server_job, "": launcher.client_job}
    if launcher.backend == "local":
        return LocalBackend(find_mpirun(launcher.mpirun), study.folder, logs)
    if launcher.mode == "allocation":
        return AllocationBackend(study.folder, logs, settings)
    return BatchBackend(scheduler_of(study, logs), study.folder, logs, settings, launcher.poll)


def scheduler_of(study: Study, logs: Path) -> Scheduler:
    """Returns the language of the study's batch scheduler.

    Args:
        study: The study.
        logs: Folder for logs and scripts, on a disk that all nodes share.

    Raises:
        RunError: There is no mpirun, where the scheduler needs one to start ranks, or no PSI/J.
    """
    backend = study.launcher.backend
    if backend == "slurm":
        return Slurm()
    if backend == "flux":
        return Flux()
    mpirun = find_mpirun(study.launcher.mpirun)
    flavour = flavour_of(mpirun)
    if backend == "pbs" or backend == "lsf":
        return Psij(backend, mpirun, flavour, logs)
    if backend == "psij_slurm":
        return Psij("slurm", mpirun, flavour, logs)
    return Oar(mpirun, flavour)


def server_world(study: Study, run_dir: Path) -> World:
    """Returns the server's world."""
    python = _python(study.launcher.server_job) or sys.executable
    # -P: a file of the study's folder must not shadow a module that the server imports.
    command = (python, "-P", "-m", "melissa_gen.server", str(run_dir))
    environment = {"OMP_NUM_THREADS": str(study.server.threads)}
    environment |= allocator(over_tcp=study.over_tcp) | level_environment()
    return World(SERVER, command, study.server.ranks, environment)


def client_world(study: Study, contact: Path, job: str, simulation: int | None = None) -> World:
    """Returns the world of a client job.

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
    return World(job, command, study.simulation.processes, environment)


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

"""The back end that a study names."""

import os
import shutil
from pathlib import Path

from melissa_gen.errors import RunError, StudyError
from melissa_gen.launcher.backends.allocation import AllocationBackend, cpus_of
from melissa_gen.launcher.backends.base import Backend, MpiJob
from melissa_gen.launcher.backends.batch import BatchBackend
from melissa_gen.launcher.backends.local import LocalBackend
from melissa_gen.launcher.backends.mpirun import detect_implementation, find_mpirun
from melissa_gen.launcher.backends.schedulers.base import Scheduler, job_spec
from melissa_gen.launcher.backends.schedulers.flux import Flux
from melissa_gen.launcher.backends.schedulers.oar import Oar
from melissa_gen.launcher.backends.schedulers.psij import Psij
from melissa_gen.launcher.backends.schedulers.slurm import Slurm
from melissa_gen.study import Study

__all__ = ["check_backend", "make_backend", "scheduler_of"]

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
    server = MpiJob(SERVER, (), study.server.ranks, {})
    client = MpiJob("clients", (), study.simulation.processes, {})
    for job, settings in ((server, launcher.server_job), (client, launcher.client_job)):
        scheduler.script(job_spec(job, "", Path("/"), folder, settings))


def _check_room(study: Study) -> None:
    """All jobs must fit into the allocation at once: a step that does not waits for another's end."""
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
    implementation = detect_implementation(mpirun)
    if backend == "pbs" or backend == "lsf":
        return Psij(backend, mpirun, implementation, logs)
    if backend == "psij_slurm":
        return Psij("slurm", mpirun, implementation, logs)
    return Oar(mpirun, implementation)

"""Creates the back end that a study configures, and checks that its requirements are met."""

import os
import shutil
from pathlib import Path

from melissa_gen.builders.descriptors import check_client_limit, check_server_limit
from melissa_gen.errors import RunError, StudyError
from melissa_gen.launcher.backends.allocation import AllocationBackend, cpus_of
from melissa_gen.launcher.backends.base import SERVER, Backend, MpiJob
from melissa_gen.launcher.backends.batch import BatchBackend
from melissa_gen.launcher.backends.local import LocalBackend
from melissa_gen.launcher.backends.machine_check import check_loopback, check_shared_memory
from melissa_gen.launcher.backends.mpirun import detect_implementation, find_mpirun
from melissa_gen.launcher.backends.schedulers.base import Scheduler, job_spec
from melissa_gen.launcher.backends.schedulers.flux import Flux
from melissa_gen.launcher.backends.schedulers.oar import Oar
from melissa_gen.launcher.backends.schedulers.psij import Psij
from melissa_gen.launcher.backends.schedulers.slurm import Slurm
from melissa_gen.study import Study

__all__ = ["check_backend", "make_backend", "make_scheduler"]

_SUBMIT_COMMANDS = {
    **{"slurm": "sbatch", "psij_slurm": "sbatch", "oar": "oarsub"},
    **{"pbs": "qsub", "lsf": "bsub", "flux": "flux"},
}


def check_backend(study: Study) -> None:
    """Checks that the requirements of the study's back end are met on this machine.

    Raises:
        StudyError: The study requests more resources than are available, or an option that is not supported.
        RunError: A command that the back end needs is missing.
    """
    launcher = study.launcher
    if launcher.backend == "local":
        find_mpirun(launcher.mpirun)
        check_server_limit(study)
        check_client_limit(study)
        check_shared_memory()
        if study.server.interface == "auto":
            check_loopback(study.server.ranks)
        return
    command = "srun" if launcher.mode == "allocation" else _SUBMIT_COMMANDS[launcher.backend]
    if shutil.which(command) is None:
        msg = f"launcher.backend is {launcher.backend}, but there is no {command} on PATH here"
        raise RunError(msg)
    if launcher.mode == "allocation":
        _check_allocation_size(study)
        return
    scheduler, folder = make_scheduler(study, Path("/")), study.folder
    server = MpiJob(SERVER, (), study.server.ranks, {})
    client = MpiJob("clients", (), study.simulation.processes, {})
    for job, settings in ((server, launcher.server_job), (client, launcher.client_job)):
        scheduler.script(job_spec(job, "", Path("/"), folder, settings))


def _check_allocation_size(study: Study) -> None:
    """Checks that all jobs fit into the allocation together.

    A step that does not fit would wait until another step ends.
    """
    server, client = study.launcher.server_job, study.launcher.client_job
    available = cpus_of(os.environ)
    if not available or server.het_group is not None or client.het_group is not None:
        return
    left = available - study.server.ranks * (server.cpus_per_task or 1)
    each = study.simulation.processes * (client.cpus_per_task or 1)
    if study.launcher.clients * each > left:
        msg = (
            f"launcher.clients {study.launcher.clients} is too large: this allocation has {available} CPUs, the server "
            f"uses {available - left} and each client uses {each}; at most {max(0, left // each)} is legal"
        )
        raise StudyError(msg)


def make_backend(study: Study, logs: Path) -> Backend:
    """Creates the back end for `launcher.backend` and `launcher.mode`.

    Args:
        study: The study.
        logs: Folder for log files; with a scheduler, on a file system that all nodes share.

    Raises:
        RunError: There is no mpirun, or the launcher does not run inside an allocation.
    """
    launcher = study.launcher
    settings = {SERVER: launcher.server_job, "": launcher.client_job}
    if launcher.backend == "local":
        return LocalBackend(find_mpirun(launcher.mpirun), study.folder, logs)
    if launcher.mode == "allocation":
        return AllocationBackend(study.folder, logs, settings)
    return BatchBackend(make_scheduler(study, logs), study.folder, logs, settings, launcher.poll)


def make_scheduler(study: Study, logs: Path) -> Scheduler:
    """Creates the adapter for the study's batch scheduler.

    Args:
        study: The study.
        logs: Folder for log files and scripts, on a file system that all nodes share.

    Raises:
        RunError: The scheduler needs mpirun or PSI/J, which is not installed.
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
        # Exists only to test the PSI/J adapter of PBS and LSF against a real SLURM.
        return Psij("slurm", mpirun, implementation, logs)
    return Oar(mpirun, implementation, logs)

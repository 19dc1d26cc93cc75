"""`melissa-gen render`: every script and command that a study would run or submit, as text."""

import shlex
from pathlib import Path

from melissa_gen.launcher.backends.allocation import step_script
from melissa_gen.launcher.backends.base import MpiJob
from melissa_gen.launcher.backends.mpirun import (
    MpirunOptions,
    detect_implementation,
    find_mpirun,
    mpirun_command,
)
from melissa_gen.launcher.backends.schedulers.base import job_spec
from melissa_gen.launcher.backends.selection import make_scheduler
from melissa_gen.launcher.jobs.mpi_jobs import client_mpi_job, server_mpi_job
from melissa_gen.study import Study

__all__ = ["render_study"]

MARK = "XXXXXX"


def render_study(study: Study, run_dir: Path) -> str:
    """Renders what `melissa-gen run` would start: the server, and one client for all.

    Args:
        study: The study.
        run_dir: The run directory that it would write.

    Returns:
        Text for a person; nothing is started, submitted or written.

    Raises:
        StudyError: The solver is not there.
        RunError: There is no mpirun, where one is needed.
    """
    alone = 0 if study.simulation.mode == "per_simulation" else None
    client = client_mpi_job(study, run_dir / "contact.json", "client-0", alone)
    clients = study.launcher.clients
    many = (
        f"{clients} at a time"
        if alone is not None
        else f"{clients} of them, started anew where one ends"
    )
    parts = [
        _heading("the server", "first"),
        _world(study, server_mpi_job(study, run_dir), run_dir),
        _heading(f"the first client; {many}", "once the server can be reached"),
        _world(study, client, run_dir),
    ]
    if study.launcher.mode == "allocation":
        ranks = study.server.ranks + clients * study.simulation.processes
        line = ["sbatch", f"--ntasks={ranks}", "slurm/study.sbatch", "STUDY.yaml"]
        parts.insert(0, _heading("the allocation", "by you") + shlex.join(line) + "\n\n")
    return "".join(parts)


def _heading(what: str, when: str) -> str:
    return f"# ---- {what}: {when}\n"


def _world(study: Study, world: MpiJob, run_dir: Path) -> str:
    launcher, logs = study.launcher, run_dir / "logs"
    if launcher.backend == "local":
        mpirun = find_mpirun(launcher.mpirun)
        options = MpirunOptions(
            mpirun, detect_implementation(mpirun), world.processes, world.command
        )
        words = [f"{key}={value}" for key, value in world.environment.items()]
        return shlex.join(["env", *words, *mpirun_command(options)]) + "\n\n"
    settings = launcher.server_job if world.name == "server" else launcher.client_job
    spec = job_spec(world, MARK, logs, study.folder, settings)
    path = logs / f"{world.name}.sh"
    if launcher.mode == "allocation":
        return f"# bash {path}\n{step_script(spec)}\n"
    scheduler = make_scheduler(study, logs)
    command = shlex.join(scheduler.submit_command(path, spec))
    return f"# {command}\n{scheduler.script(spec)}\n"

"""The command `melissa-gen render`, which prints the scripts and commands that a study would run or submit."""

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

PLACEHOLDER = "XXXXXX"
"""Stands for the random suffix of a job's title."""


def render_study(study: Study, run_dir: Path) -> str:
    """Renders the scripts and commands of the server and of the first client.

    Nothing is started, submitted or written.

    Args:
        study: The study.
        run_dir: The run directory that the run would write.

    Returns:
        The scripts and commands, with a heading for each.

    Raises:
        StudyError: The solver does not exist.
        RunError: The back end needs mpirun, which was not found.
    """
    simulation = 0 if study.simulation.mode == "per_simulation" else None
    client = client_mpi_job(study, run_dir / "contact.json", "client-0", simulation)
    clients = study.launcher.clients
    schedule = (
        f"{clients} at a time"
        if simulation is not None
        else f"{clients} in total, restarted when they end"
    )
    parts = [
        _heading("the server", "first"),
        _render_job(study, server_mpi_job(study, run_dir), run_dir),
        _heading(f"the first client; {schedule}", "once the server is reachable"),
        _render_job(study, client, run_dir),
    ]
    if study.launcher.mode == "allocation":
        ranks = study.server.ranks + clients * study.simulation.processes
        line = ["sbatch", f"--ntasks={ranks}", "slurm/study.sbatch", "STUDY.yaml"]
        parts.insert(0, _heading("the allocation", "submitted by you") + shlex.join(line) + "\n\n")
    return "".join(parts)


def _heading(what: str, when: str) -> str:
    return f"# ---- {what}: {when}\n"


def _render_job(study: Study, job: MpiJob, run_dir: Path) -> str:
    launcher, logs = study.launcher, run_dir / "logs"
    if launcher.backend == "local":
        mpirun = find_mpirun(launcher.mpirun)
        options = MpirunOptions(mpirun, detect_implementation(mpirun), job.processes, job.command)
        words = [f"{key}={value}" for key, value in job.environment.items()]
        return shlex.join(["env", *words, *mpirun_command(options)]) + "\n\n"
    settings = launcher.server_job if job.name == "server" else launcher.client_job
    spec = job_spec(job, PLACEHOLDER, logs, study.folder, settings)
    path = logs / f"{job.name}.sh"
    if launcher.mode == "allocation":
        return f"# bash {path}\n{step_script(spec)}\n"
    scheduler = make_scheduler(study, logs)
    command = shlex.join(scheduler.submit_command(path, spec))
    return f"# {command}\n{scheduler.script(spec)}\n"

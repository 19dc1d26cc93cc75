"""The command `melissa-gen generate`: a run without training that writes a data set file."""

import os
import shutil
import tempfile
import time
from pathlib import Path

from melissa_gen.builders.dataset import dataset_settings
from melissa_gen.builders.mesh import read_mesh
from melissa_gen.errors import RunError
from melissa_gen.launcher.backends.selection import check_backend
from melissa_gen.launcher.jobs.execution import (
    ResumeInfo,
    RunOutcome,
    can_resume,
    execute,
)
from melissa_gen.launcher.jobs.mpi_jobs import solver_command
from melissa_gen.report.views import DataSetView, RunView
from melissa_gen.run_dir.folder import (
    check_space,
    create_default_run_dir,
    held_run_dir,
    record_run,
)
from melissa_gen.run_dir.purpose import Purpose
from melissa_gen.study import Study

__all__ = [
    "check_output",
    "dataset_study",
    "finish_dataset",
    "generate",
    "move_bridge_output",
    "sample_count",
]


def generate(
    study: Study,
    output: Path,
    simulations: int,
    seed: int,
    view: RunView,
    *,
    run_dir: Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Runs simulations with parameters drawn from the prior, and writes their fields to an HDF5 file.

    The file has the layout of PDEBench. The run has retries, accounting and a run directory that `resume` can
    continue, as a training run has.

    Args:
        study: The study; `launcher.clients` client jobs run at the same time.
        output: The file to write; it is created after all simulations have ended.
        simulations: Number of simulations.
        seed: Seed of the parameters' random draws.
        view: Displays the progress.
        run_dir: The run directory; default: `runs/NAME-data-DATE`.
        overwrite: Whether to replace an existing file.

    Returns:
        The path of the file. It does not contain simulations that failed after all retries.

    Raises:
        RunInterruptedError: The run was interrupted; `resume` continues it.
        RunError: The run failed, or the file can't be written.
        StudyError: The solver does not exist.
    """
    started = time.monotonic()
    output = output.absolute()
    plan = dataset_study(study, simulations)
    check_output(output, sample_count(plan) * plan.sample_bytes, overwrite=overwrite)
    solver_command(plan)
    read_mesh(plan)
    check_backend(plan)
    purpose = Purpose("data_set", str(output), seed, dataset_settings(study, simulations, seed))
    where = run_dir or create_default_run_dir(study.name, Path.cwd(), suffix="-data")
    with held_run_dir(where) as held:
        view.say(f"run directory {held}")
        if study.server.ranks > 1:
            view.say(
                f"generate uses one of the {study.server.ranks} server ranks; a study with record and "
                "training.enabled: false uses all"
            )
        record_run(plan, held, purpose)
        shown = DataSetView(
            view.console, f"data set: {simulations} simulations", sample_count(plan)
        )
        outcome = execute(plan, held, shown, ResumeInfo(started))
        return finish_dataset(outcome, held, output, view)


def finish_dataset(outcome: RunOutcome, run_dir: Path, output: Path, view: RunView) -> Path:
    """Reports the outcome of a run that writes a data set.

    Returns:
        The path of the data set.

    Raises:
        RunInterruptedError: The run was interrupted.
        RunError: The run failed.
    """
    failed = outcome.summary.get("simulations", {}).get("failed", 0)
    if outcome.code and can_resume(run_dir):
        view.say(f"to resume    melissa-gen resume {run_dir}")
    outcome.raise_for_status("the data set")
    if failed:
        view.say(f"{failed} simulations failed and are not in the data set; see {run_dir}")
    move_bridge_output(run_dir, output)
    return output


def dataset_study(study: Study, simulations: int) -> Study:
    """Returns the study of a run without training, which has the same simulations and one server rank.

    Args:
        study: The study.
        simulations: Number of simulations.
    """
    job = {"gpus_per_task": None, "gres": None}
    launcher = study.launcher
    server_jobs = launcher.server_jobs.model_copy(update=job)
    plain = study.model_copy(
        update={
            "simulation": study.simulation.model_copy(update={"count": simulations}),
            "surrogate": type(study.surrogate)(),
            "training": type(study.training).model_validate(
                {
                    "batch_size": 1,
                    "checkpoint_every": study.training.checkpoint_every,
                    "validation": {"simulations": 0},
                }
            ),
            "reservoir": type(study.reservoir).model_validate({"capacity": 1, "watermark": 1}),
            "record": None,
            "statistics": None,
            "sampler": type(study.sampler).model_validate({"method": "uniform"}),
            "server": study.server.model_copy(
                update={"ranks": 1, "device": "cpu", "pin_ingest": False}
            ),
            "launcher": launcher.model_copy(
                update={
                    "clients": min(launcher.clients, simulations),
                    "server_jobs": server_jobs,
                }
            ),
        }
    )
    return plain


def check_output(
    output: Path, size: int, *, overwrite: bool = False, what: str = "--output"
) -> None:
    """Checks before the first simulation that the output file can be written.

    Args:
        output: The file, absolute.
        size: Its size in bytes.
        overwrite: Whether to replace an existing file.
        what: The option or key that names the file.

    Raises:
        RunError: The output is a folder, it exists already, its folder can't be written, or its disk is full.
    """
    if output.is_dir():
        message = f"{what} {output} is a folder; give the name of a file in it, for example {output / 'data.h5'}"
        raise RunError(message)
    if os.path.lexists(output) and not (output.is_file() or output.is_symlink()):
        message = f"{what} {output} is a device or socket and not a file; choose another name"
        raise RunError(message)
    if os.path.lexists(output) and not overwrite:
        more = ", or add --overwrite to replace it" if what == "--output" else ""
        message = f"{what} {output} exists already; choose another name{more}"
        raise RunError(message)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{what} {output}: the folder can't be created: {error.strerror}"
        raise RunError(message) from None
    try:
        # Permissions are not sufficient: the file system may be read-only, or a server may refuse the superuser.
        with tempfile.TemporaryFile(dir=output.parent, prefix=output.name):
            pass
    except OSError as error:
        message = f"{what} {output}: the folder {output.parent} is not writable: {error.strerror}"
        raise RunError(message) from None
    check_space(output.parent, f"{what} {output}", size)


def move_bridge_output(run_dir: Path, output: Path) -> None:
    """Moves the output of a bridge next to the data set: mesh coordinates, and the folders that the study keeps."""
    for name in ("coordinates.h5", "simulations"):
        source, target = run_dir / name, output.with_name(f"{output.stem}.{name}")
        if source.is_dir() and target.is_dir():
            shutil.rmtree(target)
        if source.is_file() or (source.is_dir() and any(source.iterdir())):
            shutil.move(source, target)


def sample_count(plan: Study) -> int:
    """Returns the number of samples of all simulations of a study."""
    return plan.simulation.count * plan.simulation.time_steps

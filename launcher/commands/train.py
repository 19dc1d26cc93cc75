"""The command `melissa-gen train`: trains without solvers, on recorded data or by an equation alone."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from melissa_gen.builders.dataset import dataset_writer, recorded_trajectories
from melissa_gen.builders.gpu import check_device
from melissa_gen.builders.memory import check_memory, disk_promise
from melissa_gen.builders.mesh import read_mesh
from melissa_gen.builders.recorded_files import data_stamps
from melissa_gen.builders.sampler import check_sampler
from melissa_gen.dataset import Trajectories
from melissa_gen.errors import StudyError
from melissa_gen.launcher.backends.selection import check_backend
from melissa_gen.launcher.commands.run import execute_and_present
from melissa_gen.launcher.commands.validation_sets import (
    check_sets,
    check_sets_without_solver,
    copy_file_sets,
)
from melissa_gen.launcher.jobs.execution import ResumeInfo, RunOutcome
from melissa_gen.report.trackers.packages import check_trackers
from melissa_gen.report.views import RunView
from melissa_gen.run_dir.folder import (
    create_default_run_dir,
    held_run_dir,
    record_run,
    validation_file,
)
from melissa_gen.run_dir.purpose import Purpose
from melissa_gen.study import FieldSection, FixedScaleSection, Study, with_values

__all__ = ["train_alone", "train_on_data"]


def train_on_data(
    study: Study, files: Sequence[Path], run_dir: Path | None, view: RunView
) -> RunOutcome:
    """Trains the surrogate of a study on the trajectories of data set files.

    `training.validation.simulations` of them, drawn with `training.validation.seed`, are the validation set; the others
    take the place of the study's simulations.

    Args:
        study: The study.
        files: The files: of `melissa-gen generate`, of `record`, or in the layout of PDEBench.
        run_dir: The run directory; it must not contain a run. None: a new directory `runs/NAME-DATE`.
        view: Displays the progress of the run.

    Returns:
        The outcome of the run.

    Raises:
        DataError: A file can't be read, or does not fit the study.
        MelissaGenError: The run could not be started.
    """
    started = time.monotonic()
    _check_enabled(study)
    if study.statistics is not None and study.statistics.sobol:
        message = (
            "statistics.sobol needs the groups of simulations that sampler.method pick_freeze draws, and recorded "
            "data has no groups; set it to false"
        )
        raise StudyError(message)
    if study.record is not None:
        view.say(
            f"record has no effect: the samples are in {' and '.join(map(str, files))} already"
        )
    paths = [path.absolute() for path in files]
    with recorded_trajectories(study, Purpose(data=[str(path) for path in paths])) as data:
        held_out = _held_out(study, len(data), paths)
        purpose = Purpose(
            data=[str(path) for path in paths], held_out=held_out, stamps=data_stamps(paths)
        )
        plan = _plan(study, len(data) - len(held_out))

        def write(path: Path) -> None:
            if held_out:
                _write_validation_set(study, data, held_out, path)

        return _train(plan, purpose, write, run_dir, view, started)


def train_alone(study: Study, run_dir: Path | None, view: RunView) -> RunOutcome:
    """Trains the surrogate of a study by its equation alone, without solvers and data.

    The sampler of the study chooses the parameters of `simulation.count` simulations that are not solved.

    Args:
        study: The study.
        run_dir: The run directory; it must not contain a run. None: a new directory `runs/NAME-DATE`.
        view: Displays the progress of the run.

    Returns:
        The outcome of the run.

    Raises:
        StudyError: The study needs data, or has no exact solution for its validation.
        MelissaGenError: The run could not be started.
    """
    # Imported here because importing torch takes seconds.
    from melissa_gen.builders.solution import write_solution
    from melissa_gen.builders.task import build_task

    started = time.monotonic()
    _check_enabled(study)
    if study.simulation.command or build_task(study).needs_data:
        message = (
            "without --data FILE, train needs a study without simulation.command whose surrogate.task is "
            "physics_informed with data: 0"
        )
        raise StudyError(message)
    if study.simulation.inputs:
        message = "simulation.inputs are sent by a solver, but simulation.command is missing; remove simulation.inputs"
        raise StudyError(message)
    for section in ("statistics", "record"):
        if getattr(study, section) is not None:
            message = (
                f"the section {section} needs simulated fields, but simulation.command is missing, so that there are "
                f"none; remove the section {section}"
            )
            raise StudyError(message)
    check_sampler(study)
    simulation = study.simulation
    # Without data, the network predicts the physical values, or those of a fixed scale.
    fields = {
        name: field if isinstance(field.scale, FixedScaleSection) else _unscaled(field)
        for name, field in simulation.fields.items()
    }
    plan = _plan(study, simulation.count)
    plan = plan.model_copy(
        update={"simulation": plan.simulation.model_copy(update={"fields": fields})}
    )
    return _train(
        plan,
        Purpose(alone=True),
        lambda path: write_solution(plan, path),
        run_dir,
        view,
        started,
    )


def _check_enabled(study: Study) -> None:
    if not study.training.enabled:
        message = "training.enabled is false, so that there is nothing to train; set it to true"
        raise StudyError(message)


def _unscaled(field: FieldSection) -> FieldSection:
    return field.model_copy(update={"scale": "none"})


def _train(
    plan: Study,
    purpose: Purpose,
    write_validation_set: Callable[[Path], None],
    run_dir: Path | None,
    view: RunView,
    started: float,
) -> RunOutcome:
    """Trains in a run directory, to the end of the run."""
    # Imported here because importing torch takes seconds.
    from melissa_gen.builders.surrogate import try_surrogate
    from melissa_gen.builders.surrogate_indices import check_surrogate_indices

    check_surrogate_indices(plan)
    check_device(plan)
    check_memory(plan)
    read_mesh(plan)
    check_sets_without_solver(plan)
    check_sets(plan)
    try_surrogate(plan)
    check_trackers(plan.report.trackers)
    check_backend(plan)
    with held_run_dir(run_dir or create_default_run_dir(plan.name, Path.cwd())) as held:
        view.say(f"run directory {held}")
        if plan.reservoir.checkpoint:
            view.say(disk_promise(plan, held))
        write_validation_set(held / validation_file())
        copy_file_sets(plan, held)
        record_run(plan, held, purpose)
        return execute_and_present(plan, held, view, ResumeInfo(started))


def _plan(study: Study, trajectories: int) -> Study:
    """Returns the study whose simulations are the trajectories of the files.

    Raises:
        StudyError: The number of trajectories does not fit other keys, such as `server.ranks`.
    """
    simulation = study.simulation.model_copy(
        update={
            "count": trajectories,
            "mode": "persistent",
            "processes": 1,
            "bridge": None,
            "retries": 0,
        }
    )
    launcher = study.launcher.model_copy(update={"clients": 1})
    sections = {"simulation": simulation, "launcher": launcher, "record": None}
    return with_values(study, sections)


def _held_out(study: Study, trajectories: int, paths: Sequence[Path]) -> list[int]:
    """Draws the trajectories of the validation set.

    Raises:
        StudyError: No trajectory would be left to train on.
    """
    section = study.training.validation
    if section.simulations >= trajectories:
        names = " and ".join(map(str, paths))
        message = (
            f"training.validation.simulations is {section.simulations}, but {names} hold only {trajectories} "
            f"trajectories, of which some must be left to train on; at most {trajectories - 1} is legal"
        )
        raise StudyError(message)
    random = np.random.default_rng(section.seed)
    return sorted(random.choice(trajectories, section.simulations, replace=False).tolist())


def _write_validation_set(study: Study, data: Trajectories, rows: list[int], path: Path) -> None:
    """Copies trajectories to the validation set of the run."""
    simulation = study.simulation.model_copy(update={"count": len(rows)})
    plan = study.model_copy(update={"simulation": simulation})
    with dataset_writer(plan, path, {"held_out": rows}, resume=False) as writer:
        for place, row in enumerate(rows):
            given = data.inputs(row) if study.simulation.inputs else {}
            inputs = {name: given[name] for name in study.simulation.inputs}
            writer.begin(place, row, data.parameters[row], inputs)
            step = 0
            for part in data.parts(row):
                for name, values in part.items():
                    writer.write_steps(place, step, name, values)
                step += len(next(iter(part.values())))
            writer.finish(place)

"""Builds the task of a study."""

from melissa_gen.builders.collocation import SamplersOfPoints
from melissa_gen.errors import StudyError
from melissa_gen.study import ClassSection, Study
from melissa_gen.tasks import Task, create_task

__all__ = ["build_task", "measures_errors"]


def build_task(study: Study) -> Task:
    """Creates the task of a study.

    Raises:
        StudyError: The task is unknown or can't be created, or does not fit the simulation.
    """
    section = study.surrogate.task
    if isinstance(section, ClassSection):
        task = create_task(section.class_path, section.arguments, study.folder)
    else:
        task = create_task(section, None, study.folder)
    task.set_time_steps(study.simulation.time_steps)
    task.check(study.simulation.time_steps)
    task.set_domain({str(axis): ends for axis, ends in study.simulation.domain.items()})
    if task.of_points:
        task.set_samplers(SamplersOfPoints())
    if study.simulation.mesh is not None:
        task.set_mesh(study.simulation.mesh.coordinates)
    if task.window.span > 1:
        _check_windows(study, task)
    if task.of_points:
        _check_points(study, task)
    if task.differentiates:
        _check_derivatives(study, task)
    until = study.training.until
    if until is not None and until.bounded and not measures_errors(study, task):
        message = (
            "training.until has a limit of error_bound, but the loss of an equation is no error of a field; set "
            "training.metric and train on data, or use a limit of the validation error"
        )
        raise StudyError(message)
    if task.needs_data and not study.simulation.command:
        message = (
            "simulation.command is missing, so that there is no data: set surrogate.task.arguments.data to 0, or name "
            "the solver's command"
        )
        raise StudyError(message)
    return task


def measures_errors(study: Study, task: Task) -> bool:
    """Returns whether first passes measure an error of the fields, rather than the residual of an equation."""
    return not task.differentiates or (study.training.metric is not None and task.needs_data)


def _check_windows(study: Study, task: Task) -> None:
    """Checks that the rest of the study can work with windows of several time steps.

    Raises:
        StudyError: One sentence on the key that does not fit.
    """
    policy = study.reservoir.policy
    what = f"surrogate.task {task.name} has windows of {task.window.span} time steps, so that"
    if policy != "reservoir":
        message = f"{what} reservoir.policy must be reservoir: {policy} draws single time steps"
        raise StudyError(message)
    if study.sampler.difficulty == "gradient_norm":
        message = f"{what} sampler.difficulty gradient_norm is not available; use loss, delta_loss or disagreement"
        raise StudyError(message)
    if task.window.span > study.reservoir.capacity:
        message = f"{what} reservoir.capacity must be at least {task.window.span}; it is {study.reservoir.capacity}"
        raise StudyError(message)


def _check_points(study: Study, task: Task) -> None:
    """Checks that the rest of the study can work with a network of single points.

    Raises:
        StudyError: One sentence on the key that does not fit.
    """
    what = f"surrogate.task {task.name} trains on single points, so that"
    if study.training.loss == "h1":
        message = f"{what} training.loss h1, which needs neighbors, is not available; use mse, relative or huber"
        raise StudyError(message)
    if study.sampler.difficulty == "gradient_norm":
        message = f"{what} sampler.difficulty gradient_norm is not available; use loss, delta_loss or disagreement"
        raise StudyError(message)


def _check_derivatives(study: Study, task: Task) -> None:
    """Checks that the network is computed in a way that can be differentiated twice.

    Raises:
        StudyError: One sentence on the key that does not fit.
    """
    training, what = (
        study.training,
        f"surrogate.task {task.name} differentiates the network, so that",
    )
    if training.precision == "bf16":
        message = f"{what} training.precision bf16 is not available; use float32 or tf32"
        raise StudyError(message)
    if training.compile:
        message = f"{what} training.compile is not available; set it to false"
        raise StudyError(message)
    if study.sampler.difficulty == "disagreement" and not task.needs_data:
        message = (
            f"{what} sampler.difficulty disagreement needs simulated data; use loss or delta_loss"
        )
        raise StudyError(message)

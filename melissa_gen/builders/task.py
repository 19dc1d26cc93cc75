"""Builds the task of a study."""

from melissa_gen.study import ClassSection, Study
from melissa_gen.tasks import Task, create_task

__all__ = ["build_task"]


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
    task.check(study.simulation.time_steps)
    return task

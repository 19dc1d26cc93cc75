"""The windows of time steps in which the task of a study draws its samples."""

from melissa_gen.reservoir import WindowShape
from melissa_gen.study import Study

__all__ = ["window_shape"]


def window_shape(study: Study) -> WindowShape | None:
    """Returns the shape of the windows, or None if the task draws single time steps.

    Raises:
        StudyError: The task can't be created, or does not fit the study.
    """
    # The other tasks import torch, which takes seconds.
    if study.surrogate.task == "direct":
        return None
    from melissa_gen.builders.task import build_task

    window = build_task(study).window
    return WindowShape(window.steps, window.stride) if window.span > 1 else None

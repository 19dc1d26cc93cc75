"""Creates a task by its name in the study file, or from a user's class."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from melissa_gen.errors import StudyError, nearest
from melissa_gen.surrogates.class_path import ClassKey
from melissa_gen.tasks.autoregressive import Autoregressive
from melissa_gen.tasks.base import Task
from melissa_gen.tasks.direct import Direct
from melissa_gen.tasks.operator import Operator
from melissa_gen.tasks.physics_informed import PhysicsInformed
from melissa_gen.tasks.pointwise import Pointwise

__all__ = ["create_task"]

_TASKS: dict[str, type[Task]] = {
    "direct": Direct,
    "autoregressive": Autoregressive,
    "operator": Operator,
    "pointwise": Pointwise,
    "physics_informed": PhysicsInformed,
}
_KEY = ClassKey("surrogate.task", Task, "task.py:MyTask")


def create_task(
    name: str, arguments: Mapping[str, Any] | None = None, base_folder: str | Path = "."
) -> Task:
    """Creates a task.

    Args:
        name: Name of a task of this package, `package.module.Class`, or `file.py:Class`.
        arguments: Its arguments.
        base_folder: Folder to which a relative path refers: that of the study file.

    Raises:
        StudyError: The task is unknown, can't be imported, or does not accept the arguments.

    Example:
        >>> create_task("direct").window.span
        1
    """
    cls = _TASKS.get(name)
    if cls is None:
        if "." not in name:
            message = (
                f"surrogate.task is '{name}': legal are {', '.join(_TASKS)}, 'package.module.Class' and "
                f"'file.py:Class'{nearest(name, _TASKS)}"
            )
            raise StudyError(message)
        cls = _KEY.load(name, base_folder)
    given = dict(arguments or {})
    _KEY.check_arguments(cls, given, "surrogate.task.arguments")
    try:
        return cls(**given)
    except StudyError:
        raise
    except Exception as error:
        message = f"surrogate.task {name} can't be created from surrogate.task.arguments: {error}"
        raise StudyError(message) from error

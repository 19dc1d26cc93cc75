"""Which package each tracker needs, and whether it is installed."""

from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any, cast

from melissa_gen.errors import StudyError
from melissa_gen.report.trackers.tracker import Tracker

__all__ = ["check_trackers", "make_tracker"]

CLASSES = {
    "mlflow": "MlflowTracker",
    "wandb": "WandbTracker",
    "trackio": "TrackioTracker",
}
"""Names of the trackers, which are those of their packages and extras, to their classes."""


def check_trackers(
    names: Iterable[str], find: Callable[[str], ModuleSpec | None] = find_spec
) -> None:
    """Checks that the packages of the trackers of a study are installed. Imports none of them.

    Args:
        names: `report.trackers` of the study.
        find: Finds a package; default: the import system.

    Raises:
        StudyError: One is missing; the message says how to install it.
    """
    for name in names:
        if name not in CLASSES:
            continue
        found = find(name)
        # A folder of this name without a Python file, such as that of the results of wandb, is no package.
        if found is None or found.origin is None:
            message = (
                f"report.trackers: {name} needs the package {name}, which is not installed; install it with "
                f"'pip install melissa_gen[{name}]', or remove {name} from report.trackers"
            )
            raise StudyError(message)


def make_tracker(name: str) -> Tracker:
    """Imports the package of a tracker, which may take seconds, and creates the tracker."""
    module: Any = import_module(f"melissa_gen.report.trackers.{name}_tracker")
    return cast(Tracker, getattr(module, CLASSES[name])())

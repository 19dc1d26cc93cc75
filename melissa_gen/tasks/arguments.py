"""Checks of the arguments of a task in the study file."""

import math

from melissa_gen.errors import StudyError

__all__ = ["require", "require_count", "require_number"]


def require(name: str, value: object, fits: bool, legal: str) -> None:
    """Raises a `StudyError` on an argument of a task if it does not fit."""
    if not fits:
        message = f"surrogate.task.arguments.{name} is {value}: legal are {legal}"
        raise StudyError(message)


def require_count(name: str, value: object, least: int = 1) -> None:
    """Raises a `StudyError` on an argument of a task that is not a whole number from `least`."""
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= least
    require(name, value, fits, f"whole numbers from {least}")


def require_number(name: str, value: object, least: float = -math.inf) -> None:
    """Raises a `StudyError` on an argument of a task that is not a finite number from `least`."""
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    fits = fits and math.isfinite(value) and value >= least  # type: ignore[arg-type, operator]
    require(name, value, fits, "numbers" if least == -math.inf else f"numbers from {least:g}")

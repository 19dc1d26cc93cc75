"""Initial and boundary conditions: further terms of the loss of a physics-informed network."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from melissa_gen.errors import StudyError, nearest
from melissa_gen.surrogates.user_functions import Function, load_function
from melissa_gen.tasks.arguments import require_count, require_number

__all__ = ["Condition", "read_condition"]

_KEYS = ("function", "arguments", "at", "periodic", "weight", "points")


@dataclass(frozen=True)
class Condition:
    """A condition on a face of the domain.

    Attributes:
        key: Its key in the study, for messages.
        at: Name of a coordinate to its value, `low` or `high`; the others are drawn uniformly.
        function: Returns what must be zero, `(n,)` or `(n, E)`; None: the condition is periodic.
        periodic: Axis at whose two ends the fields are equal; empty for a function.
        weight: Weight of the mean square in the loss.
        points: Number of points of a batch.
    """

    key: str
    at: Mapping[str, float | str]
    function: Function | None
    periodic: str
    weight: float
    points: int

    def places(self, axes: tuple[str, ...], device: torch.device) -> torch.Tensor:
        """Draws uniform points of the unit cube `(points, len(axes))`; those of `place` are set later."""
        return torch.rand(self.points, len(axes), device=device)

    def place(
        self,
        coordinates: Mapping[str, torch.Tensor],
        ends: Mapping[str, tuple[float, float]],
        at: Mapping[str, float | str],
    ) -> dict[str, torch.Tensor]:
        """Returns physical coordinates `(n,)` of which some are those of a face.

        Args:
            coordinates: Physical coordinates of points in the whole domain.
            ends: Name of each coordinate to its (low, high).
            at: The coordinates of the face.
        """
        found = dict(coordinates)
        for name, value in at.items():
            number = {"low": ends[name][0], "high": ends[name][1]}.get(str(value), value)
            found[name] = torch.full_like(coordinates[name], float(number))
        return found


def read_condition(
    number: int, given: Any, axes: tuple[str, ...], folder: str | Path, points: int
) -> Condition:
    """Reads an entry of `conditions`.

    Args:
        number: Its place in the list.
        given: The entry.
        axes: Names of the coordinates, `t` first.
        folder: Folder to which a relative path refers.
        points: Number of points unless the entry has its own.

    Raises:
        StudyError: A key or value is not legal.
    """
    key = f"surrogate.task.arguments.conditions[{number}]"
    if not isinstance(given, Mapping):
        message = f"{key} is {given}: legal is a mapping with function and at, or with periodic"
        raise StudyError(message)
    if unknown := [name for name in given if name not in _KEYS]:
        hint = nearest(str(unknown[0]), _KEYS)
        message = f"{key} has the key '{unknown[0]}'; legal are {', '.join(_KEYS)}{hint}"
        raise StudyError(message)
    if ("function" in given) == ("periodic" in given):
        message = f"{key} must have either function or periodic"
        raise StudyError(message)
    at, periodic = given.get("at", {}), str(given.get("periodic", ""))
    if not isinstance(at, Mapping):
        message = f"{key}.at is {at}: legal is a mapping of coordinates to a number, low or high"
        raise StudyError(message)
    if periodic and ("arguments" in given or periodic in at):
        message = f"{key} is periodic, so that it has no arguments, and no value of {periodic} in at: remove these"
        raise StudyError(message)
    for name, value in (*at.items(), *([(periodic, "low")] if periodic else [])):
        if name not in axes:
            message = f"{key} names the coordinate '{name}'; legal are {', '.join(axes)}{nearest(str(name), axes)}"
            raise StudyError(message)
        if value not in ("low", "high") and not isinstance(value, int | float):
            message = f"{key}.at.{name} is '{value}': legal are a number, low and high"
            raise StudyError(message)
    function = None
    if "function" in given:
        section = {name: given[name] for name in ("function", "arguments") if name in given}
        function = load_function(f"{key}.function", section, folder)
    weight, count = given.get("weight", 1.0), given.get("points", points)
    require_number(f"conditions[{number}].weight", weight, 0)
    require_count(f"conditions[{number}].points", count)
    return Condition(key, dict(at), function, periodic, float(weight), count)

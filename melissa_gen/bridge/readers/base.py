"""What all readers share: the interface, the error, and the arrays that a file holds."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy.typing as npt

from melissa_gen.errors import SimulationError

__all__ = ["COORDINATES", "Arrays", "OutputError", "Reader"]

COORDINATES = "coordinates"
"""Key under which a reader may return the coordinates of the points, (n, dimensions), beside the fields."""


class OutputError(SimulationError):
    """The output of a command does not match the study."""


class Reader(Protocol):
    """Reads the output of one simulation."""

    def read(self, step: int, ended: bool) -> Mapping[str, npt.NDArray[Any]] | None:
        """Returns the fields of one time step, or None if they are not complete yet.

        Args:
            step: Number of the time step, from 0. A step is requested again until it was returned.
            ended: Whether the command has ended, so that its files no longer change.

        Raises:
            OutputError: The time step can never be read as the study describes it.
        """


class Arrays(NamedTuple):
    """The content of one file.

    Attributes:
        named: Arrays by name.
        single: The only array of a format that does not name its arrays, or None.
        points: Coordinates of the points, (n, dimensions), or None.
    """

    named: Mapping[str, npt.NDArray[Any]]
    single: npt.NDArray[Any] | None = None
    points: npt.NDArray[Any] | None = None

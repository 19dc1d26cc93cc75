"""The grid behind the output of a network: its axes, its channels, and the coordinates of its points."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from melissa_gen.errors import StudyError

__all__ = ["Grid"]


class Grid(NamedTuple):
    """Splits the shape of an output into channels and the points of a regular grid.

    Attributes:
        channels: Number of values at each point: the product of the leading axes.
        points: Number of points along each axis of the grid.
    """

    channels: int
    points: tuple[int, ...]

    @classmethod
    def of(
        cls, output_shape: Sequence[int], dimensions: int | None = None, limit: int = 3
    ) -> "Grid":
        """Returns the grid of an output.

        Args:
            output_shape: Shape of the output without the batch axis.
            dimensions: Number of its last axes that belong to the grid. None takes up to two axes, so that
                `(64,)` has one, `(64, 64)` two, and `(2, 64, 64)` two and two channels.
            limit: Largest number of axes that the network supports.

        Raises:
            StudyError: The output has fewer axes, or the network does not support as many.
        """
        axes = min(2, len(output_shape)) if dimensions is None else dimensions
        if not 1 <= axes <= min(limit, len(output_shape)):
            message = (
                f"surrogate.arguments.dimensions is {axes}: legal are 1 to {min(limit, len(output_shape))} "
                f"for an output of shape {tuple(output_shape)}"
            )
            raise StudyError(message)
        split = len(output_shape) - axes
        return cls(math.prod(output_shape[:split]), tuple(output_shape[split:]))

    def coordinates(self) -> torch.Tensor:
        """Returns the coordinates of the points, from -1 to 1 along each axis: (axes, *points)."""
        axes = [torch.linspace(-1.0, 1.0, count) for count in self.points]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"))

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Repeats values `(n, k)` at each point: `(n, k, *points)`."""
        return values.reshape(*values.shape, *[1] * len(self.points)).expand(-1, -1, *self.points)

    def input_channels(self, n_inputs: int, history: int) -> int:
        """Returns the number of input fields if the last inputs are the fields of some time steps."""
        return n_inputs - history * self.channels * (math.prod(self.points) - 1)

    def fields_and_constants(
        self, inputs: torch.Tensor, history: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Splits inputs `(n, n_inputs)` into the fields of time steps `(n, k, *points)` and the other inputs."""
        count = history * self.channels * math.prod(self.points)
        split = inputs.shape[1] - count
        fields = inputs[:, split:].reshape(inputs.shape[0], history * self.channels, *self.points)
        return fields, inputs[:, :split]

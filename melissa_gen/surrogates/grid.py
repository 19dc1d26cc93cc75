"""The grid behind the output of a network: its axes, its channels, and the coordinates of its points."""

import math
from collections.abc import Mapping, Sequence
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

    def given_channels(
        self, history: int, input_shapes: Mapping[str, Sequence[int]] | None = None
    ) -> int:
        """Returns the number of channels that given fields have on the grid.

        Args:
            history: Number of time steps whose fields are given.
            input_shapes: Name of each input field of the simulation to its shape.

        Raises:
            StudyError: An input field is not on the grid.
        """
        count = history * self.channels
        for name, shape in (input_shapes or {}).items():
            if tuple(shape[-len(self.points) :]) != self.points:
                message = (
                    f"simulation.inputs.{name} has the shape {list(shape)}, which is not on the grid "
                    f"{list(self.points)} of the output; use MLP or DeepONet, which take inputs of any shape"
                )
                raise StudyError(message)
            count += math.prod(shape[: -len(self.points)])
        return count

    def input_channels(self, n_inputs: int, given: int) -> int:
        """Returns the number of input channels if the last inputs are this number of fields on the grid."""
        return n_inputs - given * (math.prod(self.points) - 1)

    def fields_and_constants(
        self, inputs: torch.Tensor, given: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Splits inputs `(n, n_inputs)` into the given fields `(n, given, *points)` and the other inputs."""
        split = inputs.shape[1] - given * math.prod(self.points)
        fields = inputs[:, split:].reshape(inputs.shape[0], given, *self.points)
        return fields, inputs[:, :split]

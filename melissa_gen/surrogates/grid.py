"""The grid behind the output of a network: its axes, its channels, and the coordinates of its points."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from melissa_gen.errors import StudyError

__all__ = ["Grid", "constant_inputs"]


class Grid(NamedTuple):
    """Splits the shape of an output into channels and the points of a regular grid.

    Attributes:
        channels: Number of values at each point: the product of the leading axes.
        points: Number of points along each axis of the grid.
        over_time: Whether the first axis of the grid is that of the time steps of a trajectory.
    """

    channels: int
    points: tuple[int, ...]
    over_time: bool = False

    @classmethod
    def of(
        cls,
        output_shape: Sequence[int],
        dimensions: int | None = None,
        limit: int = 3,
        trajectory: int = 0,
    ) -> "Grid":
        """Returns the grid of an output.

        Args:
            output_shape: Shape of the output without the batch axis.
            dimensions: Number of its last axes that belong to the grid. None takes up to two axes, so that
                `(64,)` has one, `(64, 64)` two, and `(2, 64, 64)` two and two channels.
            limit: Largest number of axes that the network supports.
            trajectory: Number of time steps, if they are the first axis of the output. They are channels, unless
                `dimensions` counts all axes of the output.

        Raises:
            StudyError: The output has fewer axes, or the network does not support as many.
        """
        usual = min(2, max(1, len(output_shape) - bool(trajectory)))
        axes = usual if dimensions is None else dimensions
        if not 1 <= axes <= min(limit, len(output_shape)):
            message = (
                f"surrogate.arguments.dimensions is {axes}: legal are 1 to {min(limit, len(output_shape))} "
                f"for an output of shape {tuple(output_shape)}"
            )
            raise StudyError(message)
        split = len(output_shape) - axes
        over_time = bool(trajectory) and not split
        if over_time and output_shape[0] != trajectory:
            message = (
                f"surrogate.arguments.dimensions is {axes}, so that time is an axis of the grid, which the heads of "
                "an ensemble can't share: set surrogate.ensemble.kind to members, or dimensions to at most "
                f"{axes - 1}"
            )
            raise StudyError(message)
        return cls(math.prod(output_shape[:split]), tuple(output_shape[split:]), over_time)

    @property
    def input_points(self) -> tuple[int, ...]:
        """Number of points along each axis of the given fields, which are repeated along the axis of time."""
        return self.points[1:] if self.over_time else self.points

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
        grid = self.input_points
        for name, shape in (input_shapes or {}).items():
            split = len(shape) - len(grid)
            if split < 0 or tuple(shape[split:]) != grid:
                message = (
                    f"simulation.inputs.{name} has the shape {list(shape)}, which is not on the grid "
                    f"{list(grid)} of the output; use MLP or DeepONet, which take inputs of any shape"
                )
                raise StudyError(message)
            count += math.prod(shape[:split])
        return count

    def input_channels(self, n_inputs: int, given: int) -> int:
        """Returns the number of input channels if the last inputs are this number of fields on the grid."""
        return constant_inputs(n_inputs, given * math.prod(self.input_points)) + given

    def fields_and_constants(
        self, inputs: torch.Tensor, given: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Splits inputs `(n, n_inputs)` into the given fields `(n, given, *points)` and the other inputs."""
        split = inputs.shape[1] - given * math.prod(self.input_points)
        fields = inputs[:, split:].reshape(inputs.shape[0], given, *self.input_points)
        if self.over_time:
            fields = fields.unsqueeze(2).expand(-1, -1, *self.points)
        return fields, inputs[:, :split]


def constant_inputs(n_inputs: int, given: int) -> int:
    """Returns the number of inputs of a network that are parameters or time, and no values of given fields.

    Args:
        n_inputs: Number of all inputs.
        given: Number of the values of given fields.

    Raises:
        StudyError: There are more given values than inputs: those of a time step were counted by the output of all
            heads of an ensemble.
    """
    if given >= n_inputs:
        message = (
            "surrogate.ensemble.kind is heads, with which the given time steps are not on the grid of the network's "
            "output: set it to members or snapshots"
        )
        raise StudyError(message)
    return n_inputs - given

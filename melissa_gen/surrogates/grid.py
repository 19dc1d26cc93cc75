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
        heads: Number of heads of an ensemble; the channels are those of all heads.
    """

    channels: int
    points: tuple[int, ...]
    over_time: bool = False
    heads: int = 1

    @classmethod
    def of(
        cls,
        output_shape: Sequence[int],
        dimensions: int | None = None,
        limit: int = 3,
        trajectory: int = 0,
        ensemble_heads: int = 0,
    ) -> "Grid":
        """Returns the grid of an output.

        Args:
            output_shape: Shape of the output without the batch axis.
            dimensions: Number of its last axes that belong to the grid. None takes up to two axes, so that
                `(64,)` has one, `(64, 64)` two, and `(2, 64, 64)` two and two channels.
            limit: Largest number of axes that the network supports.
            trajectory: Number of time steps, if they are the first axis of the output. They are channels, unless
                `dimensions` counts all axes of the output.
            ensemble_heads: Number of heads of an ensemble, if they are the first axis of `output_shape`. That axis is
                not counted above: each head has channels of its own.

        Raises:
            StudyError: The output has fewer axes, or the network does not support as many.
        """
        heads, shape = max(ensemble_heads, 1), tuple(output_shape)
        if ensemble_heads:
            if shape[:1] != (ensemble_heads,):
                message = (
                    f"surrogate.arguments.ensemble_heads is {ensemble_heads}: leave it out, it follows from "
                    "surrogate.ensemble"
                )
                raise StudyError(message)
            shape = shape[1:]
        usual = min(2, max(1, len(shape) - bool(trajectory)))
        axes = usual if dimensions is None else dimensions
        if not 1 <= axes <= min(limit, len(shape)):
            message = (
                f"surrogate.arguments.dimensions is {axes}: legal are 1 to {min(limit, len(shape))} "
                f"for an output of shape {shape}"
            )
            raise StudyError(message)
        split = len(shape) - axes
        over_time = bool(trajectory) and not split
        return cls(heads * math.prod(shape[:split]), shape[split:], over_time, heads)

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
        count = history * (self.channels // self.heads)
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
        StudyError: There are more given values than inputs.
    """
    if given >= n_inputs:
        message = (
            f"surrogate.arguments.history and input_shapes count {given} values of given fields, but the network has "
            f"{n_inputs} inputs: leave them out, they follow from surrogate.task and simulation.inputs"
        )
        raise StudyError(message)
    return n_inputs - given

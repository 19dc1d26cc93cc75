"""DeepONet: the field is a sum of functions of the position, whose coefficients depend on the parameters."""

from collections.abc import Sequence

import torch
from torch import nn

from melissa_gen.errors import StudyError
from melissa_gen.surrogates.grid import Grid
from melissa_gen.surrogates.mlp import MLP

__all__ = ["DeepONet"]


class DeepONet(nn.Module):
    """Deep operator network (Lu et al., arXiv 1910.03193) on the points of a regular grid, or of a mesh.

    A branch network maps parameters and time to coefficients, and a trunk network maps a position to the values of as
    many basis functions. The output is the sum of their products, plus a bias for each channel.

    Args:
        n_inputs: Number of inputs: parameters and time.
        output_shape: Shape of the output without the batch axis.
        basis: Number of basis functions.
        branch: Width of each hidden layer of the branch network.
        trunk: Width of each hidden layer of the trunk network.
        activation: Activation of both; see `MLP`.
        dimensions: Number of the last axes of the output that belong to the grid, at most 3; the axes before them are
            channels. None takes two, or the only one.
        trajectory: Number of time steps, which are the first axis of the output; the task `operator` sets it if it
            predicts trajectories. The time steps are channels, unless `dimensions` counts all axes of the output: then
            the trunk network maps a time and a position.
        mesh_axes: Number of coordinates of each point of `simulation.mesh`, which are the positions then: `set_points`
            receives them. The points are the last axis of the output. 0: the points are those of a regular grid.

    Raises:
        StudyError: An argument is not legal.

    Example:
        >>> DeepONet(3, (2, 32, 32))(torch.zeros(4, 3)).shape
        torch.Size([4, 2, 32, 32])
    """

    coordinates: torch.Tensor

    def __init__(
        self,
        n_inputs: int,
        output_shape: Sequence[int],
        basis: int = 64,
        branch: Sequence[int] = (128, 128),
        trunk: Sequence[int] = (128, 128, 128),
        activation: str = "gelu",
        dimensions: int | None = None,
        trajectory: int = 0,
        mesh_axes: int = 0,
    ) -> None:
        super().__init__()
        if mesh_axes not in range(4):
            message = f"surrogate.arguments.mesh_axes is {mesh_axes}: legal are 0 to 3"
            raise StudyError(message)
        self.output_shape, self.mesh_axes = tuple(output_shape), mesh_axes
        grid = Grid.of(output_shape, 1 if mesh_axes else dimensions, trajectory=trajectory)
        axes = mesh_axes or len(grid.points)
        self.branch = MLP(n_inputs, (grid.channels, basis), branch, activation)
        self.basis = MLP(axes, (basis,), trunk, activation)
        self.bias = nn.Parameter(torch.zeros(grid.channels, 1))
        # A copy with the usual strides, which the synchronization of the ranks needs even along an axis of length 1.
        positions = torch.stack([axis.reshape(-1) for axis in grid.coordinates()], dim=1)
        positions = torch.zeros(grid.points[0], mesh_axes) if mesh_axes else positions
        self.register_buffer("coordinates", positions, persistent=bool(mesh_axes))

    def set_points(self, points: torch.Tensor) -> None:
        """Sets the points of the mesh.

        Args:
            points: Coordinates `(N, mesh_axes)`, in the order of the last axis of the output.

        Raises:
            StudyError: There are other points, or they have another number of coordinates.
        """
        if points.shape != self.coordinates.shape:
            message = (
                f"simulation.mesh.coordinates holds an array {tuple(points.shape)}, but surrogate.arguments.mesh_axes "
                f"{self.mesh_axes} and the fields need {tuple(self.coordinates.shape)}: (points, coordinates)"
            )
            raise StudyError(message)
        low, high = points.aminmax(dim=0)
        width = torch.where(high > low, high - low, 1.0)
        self.coordinates.copy_(2 * (points - low) / width - 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps inputs (n, n_inputs) to outputs (n, *output_shape)."""
        functions = self.basis(self.coordinates)
        values = self.branch(inputs) @ functions.T / functions.shape[1] ** 0.5 + self.bias
        outputs: torch.Tensor = values.reshape(inputs.shape[0], *self.output_shape)
        return outputs

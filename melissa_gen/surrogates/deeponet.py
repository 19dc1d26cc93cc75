"""DeepONet: the field is a sum of functions of the position, whose coefficients depend on the parameters."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from melissa_gen.errors import StudyError
from melissa_gen.surrogates.conditioning import (
    Conditioning,
    condition_of,
    films_of,
    modulated,
    require_conditioning,
)
from melissa_gen.surrogates.grid import Grid, constant_inputs
from melissa_gen.surrogates.mlp import MLP

__all__ = ["DeepONet"]


class DeepONet(nn.Module):
    """Deep operator network (Lu et al., arXiv 1910.03193) on the points of a regular grid, or of a mesh.

    A branch network maps parameters and time to coefficients, and a trunk network maps a position to the values of as
    many basis functions. The output is the sum of their products, plus a bias for each channel. Given fields are inputs
    of the branch network, too. With them, parameters and time can scale and shift its hidden layers instead
    (`conditioning: film`), by numbers that a small network computes from them, at first by those of the identity.

    Args:
        n_inputs: Number of inputs: parameters and time.
        output_shape: Shape of the output without the batch axis.
        basis: Number of basis functions.
        branch: Width of each hidden layer of the branch network.
        trunk: Width of each hidden layer of the trunk network.
        activation: Activation of both; see `MLP`.
        conditioning: `channels`: parameters and time are inputs of the branch network. `film`: they scale and shift its
            hidden layers, and its inputs are the given fields alone, without which `film` is not legal.
        dimensions: Number of the last axes of the output that belong to the grid, at most 3; the axes before them are
            channels. None takes two, or the only one.
        history: Number of time steps whose fields are the last inputs; the task `autoregressive` sets it.
        input_shapes: Name of each input field, whose values are the last inputs, to its shape; tasks with input fields
            set it.
        trajectory: Number of time steps, which are the first axis of the output; the task `operator` sets it if it
            predicts trajectories. The time steps are channels, unless `dimensions` counts all axes of the output: then
            the trunk network maps a time and a position.
        mesh_axes: Number of coordinates of each point of `simulation.mesh`, which are the positions then: `set_points`
            receives them. The points are the last axis of the output. 0: the points are those of a regular grid.
        ensemble_heads: Number of heads of an ensemble, which are the first axis of `output_shape` then; the surrogate
            sets it. Each head has channels of its own in the last layer.

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
        conditioning: Conditioning = "channels",
        dimensions: int | None = None,
        history: int = 0,
        input_shapes: Mapping[str, Sequence[int]] | None = None,
        trajectory: int = 0,
        mesh_axes: int = 0,
        ensemble_heads: int = 0,
    ) -> None:
        super().__init__()
        if mesh_axes not in range(4):
            message = f"surrogate.arguments.mesh_axes is {mesh_axes}: legal are 0 to 3"
            raise StudyError(message)
        self.output_shape, self.mesh_axes = tuple(output_shape), mesh_axes
        grid = Grid.of(
            output_shape,
            1 if mesh_axes else dimensions,
            trajectory=trajectory,
            ensemble_heads=ensemble_heads,
        )
        axes = mesh_axes or len(grid.points)
        self._given = n_inputs
        self.embedding: nn.Sequential | None = None
        require_conditioning(conditioning)
        if conditioning == "film":
            given = [
                history * math.prod(output_shape) // grid.heads,
                *map(math.prod, (input_shapes or {}).values()),
            ]
            self._given = sum(given)
            if not (self._given and branch):
                message = (
                    "surrogate.arguments.conditioning is 'film', for which the branch network of DeepONet needs given "
                    "fields and a hidden layer: legal here is channels, i.e. parameters and time as its inputs"
                )
                raise StudyError(message)
            width = 4 * max(branch)
            self.embedding = condition_of(constant_inputs(n_inputs, self._given), width)
            self.films = films_of(width, list(branch))
        self.branch = MLP(self._given, (grid.channels, basis), branch, activation)
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
        values = self._coefficients(inputs) @ functions.T / functions.shape[1] ** 0.5 + self.bias
        outputs: torch.Tensor = values.reshape(inputs.shape[0], *self.output_shape)
        return outputs

    def _coefficients(self, inputs: torch.Tensor) -> torch.Tensor:
        """Returns the coefficients of the basis functions (n, channels, basis)."""
        if self.embedding is None:
            coefficients: torch.Tensor = self.branch(inputs)
            return coefficients
        condition, hidden = self.embedding(inputs[:, : -self._given]), inputs[:, -self._given :]
        films = iter(self.films)
        for layer in self.branch.trunk.children():
            hidden = layer(hidden)
            if isinstance(layer, nn.Linear):
                hidden = modulated(hidden, next(films)(condition))
        outputs: torch.Tensor = self.branch.head(hidden)
        return outputs.reshape(inputs.shape[0], *self.branch.output_shape)

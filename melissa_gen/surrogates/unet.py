"""U-Net that is conditioned on parameters and time."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from melissa_gen.errors import StudyError
from melissa_gen.surrogates.conditioning import (
    Conditioning,
    condition_of,
    modulated,
    require_conditioning,
)
from melissa_gen.surrogates.grid import Grid

__all__ = ["UNet"]

_CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_POOLS: dict[int, Any] = {
    1: functional.avg_pool1d,
    2: functional.avg_pool2d,
    3: functional.avg_pool3d,
}
_GROUPS = 8


class UNet(nn.Module):
    """U-Net on a regular grid, with residual blocks, group normalization and skip connections.

    Its input fields are the coordinates of the points. Parameters and time enter in one of two ways: `film` scales and
    shifts the channels of each block by numbers that a small network computes from them (Perez et al.,
    arXiv 1709.07871); `channels` adds each of them as a constant input field.

    Args:
        n_inputs: Number of inputs: parameters and time.
        output_shape: Shape of the output without the batch axis.
        width: Channels at full resolution, a multiple of 8; each level doubles them.
        levels: Number of levels with half the resolution of the one before.
        conditioning: `film` or `channels`.
        dimensions: Number of the last axes of the output that belong to the grid, at most 3; the axes before them are
            channels. None takes two, or the only one.
        history: Number of time steps whose fields are the last inputs and become channels; the task `autoregressive`
            sets it.
        input_shapes: Name of each input field, whose values are the last inputs and become channels, to its shape; the
            task `operator` sets it.
        trajectory: Number of time steps, which are the first axis of the output; the task `operator` sets it if it
            predicts trajectories. The time steps are channels, unless `dimensions` counts all axes of the output: then
            time is an axis of the grid, along which input fields are repeated.
        ensemble_heads: Number of heads of an ensemble, which are the first axis of `output_shape` then; the surrogate
            sets it. Each head has channels of its own in the last layer.

    Raises:
        StudyError: An argument is not legal.

    Example:
        >>> UNet(3, (2, 33, 20), width=8, levels=2)(torch.zeros(4, 3)).shape
        torch.Size([4, 2, 33, 20])
    """

    coordinates: torch.Tensor

    def __init__(
        self,
        n_inputs: int,
        output_shape: Sequence[int],
        width: int = 32,
        levels: int = 3,
        conditioning: Conditioning = "film",
        dimensions: int | None = None,
        history: int = 0,
        input_shapes: Mapping[str, Sequence[int]] | None = None,
        trajectory: int = 0,
        ensemble_heads: int = 0,
    ) -> None:
        super().__init__()
        if width <= 0 or width % _GROUPS:
            message = f"surrogate.arguments.width is {width}: legal are multiples of {_GROUPS}"
            raise StudyError(message)
        require_conditioning(conditioning)
        self.output_shape = tuple(output_shape)
        self._grid = grid = Grid.of(
            output_shape, dimensions, trajectory=trajectory, ensemble_heads=ensemble_heads
        )
        axes = len(grid.points)
        if levels < 0 or min(grid.points) < 2**levels:
            most = min(grid.points).bit_length() - 1
            message = (
                f"surrogate.arguments.levels is {levels}: legal are 0 to {most} "
                f"for a grid of {grid.points} points"
            )
            raise StudyError(message)
        self._factor, self._pool = 2**levels, _POOLS[axes]
        self._given = grid.given_channels(history, input_shapes)
        constants = grid.input_channels(n_inputs, self._given) - self._given
        self._as_channels = conditioning == "channels"
        condition = 0 if self._as_channels else 4 * width
        self.embedding = condition_of(constants, condition) if condition else None
        convolution = _CONVOLUTIONS[axes]
        widths = [width * 2**level for level in range(levels + 1)]
        fields = axes + self._given + (constants if self._as_channels else 0)
        self.first = convolution(fields, width, 3, padding=1)
        self.down = nn.ModuleList(
            _Block(convolution, widths[max(level - 1, 0)], widths[level], condition)
            for level in range(levels + 1)
        )
        self.up = nn.ModuleList(
            _Block(convolution, widths[level + 1] + widths[level], widths[level], condition)
            for level in reversed(range(levels))
        )
        self.norm = nn.GroupNorm(_GROUPS, width)
        self.last = convolution(width, grid.channels, 1)
        self.register_buffer("coordinates", grid.coordinates(), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps inputs (n, n_inputs) to outputs (n, *output_shape)."""
        axes = len(self._grid.points)
        given, constants = self._grid.fields_and_constants(inputs, self._given)
        fields = self.coordinates.expand(inputs.shape[0], *self.coordinates.shape)
        fields = torch.cat([fields, given], dim=1) if self._given else fields
        if self._as_channels:
            fields = torch.cat([fields, self._grid.spread(constants)], dim=1)
        condition = None if self.embedding is None else self.embedding(constants)
        missing = [-count % self._factor for count in reversed(self._grid.points)]
        padded = functional.pad(fields, [one for count in missing for one in (0, count)])
        hidden = self.first(padded)
        skips = []
        for level, block in enumerate(self.down):
            if level:
                hidden = self._pool(hidden, 2)
            hidden = block(hidden, condition)
            skips.append(hidden)
        skips.pop()
        for block in self.up:
            finer = functional.interpolate(hidden, scale_factor=2.0, mode="nearest")
            hidden = block(torch.cat([finer, skips.pop()], dim=1), condition)
        for axis, count in enumerate(self._grid.points):
            hidden = hidden.narrow(hidden.dim() - axes + axis, 0, count)
        outputs: torch.Tensor = self.last(functional.silu(self.norm(hidden)))
        return outputs.reshape(inputs.shape[0], *self.output_shape)


class _Block(nn.Module):
    """Two convolutions with a residual connection; the condition scales and shifts the channels between them."""

    def __init__(self, convolution: Any, inputs: int, outputs: int, condition: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(_GROUPS, inputs), nn.GroupNorm(_GROUPS, outputs)])
        self.convolutions = nn.ModuleList(
            [
                convolution(inputs, outputs, 3, padding=1),
                convolution(outputs, outputs, 3, padding=1),
            ]
        )
        self.film = nn.Linear(condition, 2 * outputs) if condition else None
        self.skip = nn.Identity() if inputs == outputs else convolution(inputs, outputs, 1)

    def forward(self, fields: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        hidden = self.convolutions[0](functional.silu(self.norms[0](fields)))
        hidden = self.norms[1](hidden)
        if self.film is not None:
            hidden = modulated(hidden, self.film(condition))
        hidden = self.convolutions[1](functional.silu(hidden))
        outputs: torch.Tensor = hidden + self.skip(fields)
        return outputs

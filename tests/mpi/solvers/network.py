"""A user's own network, loaded by path."""

import math

import torch


class Linear(torch.nn.Module):
    """One layer."""

    def __init__(self, n_inputs: int, output_shape: tuple[int, ...], bias: bool = True) -> None:
        super().__init__()
        self.output_shape = output_shape
        self.layer = torch.nn.Linear(n_inputs, math.prod(output_shape), bias=bias)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Applies it."""
        return self.layer(values).reshape(len(values), *self.output_shape)


class Normalized(Linear):
    """One layer after a normalization over the batch."""

    def __init__(self, n_inputs: int, output_shape: tuple[int, ...]) -> None:
        super().__init__(n_inputs, output_shape)
        self.norm = torch.nn.BatchNorm1d(n_inputs)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Applies both."""
        return super().forward(self.norm(values))

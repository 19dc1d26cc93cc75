"""Multilayer perceptron that maps (parameters, time) to a whole field."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from melissa_gen.errors import StudyError, nearest

__all__ = ["MLP"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class MLP(nn.Module):
    """Multilayer perceptron whose output layer has one unit for each value of the field.

    With the default arguments and 6 inputs it is the network of the published heat benchmark:
    6 → 256 → 256 → 10,000.

    Args:
        n_inputs: Number of inputs: parameters and time.
        output_shape: Shape of the output without the batch axis.
        hidden: Width of each hidden layer.
        activation: One of elu, gelu, relu, silu, tanh.

    Raises:
        StudyError: The activation is unknown, or a width is not a positive integer.

    Example:
        >>> MLP(6, (100, 100))(torch.zeros(4, 6)).shape
        torch.Size([4, 100, 100])
    """

    def __init__(
        self,
        n_inputs: int,
        output_shape: Sequence[int],
        hidden: Sequence[int] = (256, 256),
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            message = (
                f"surrogate.arguments.activation is '{activation}': legal are "
                f"{', '.join(ACTIVATIONS)}{nearest(activation, ACTIVATIONS)}"
            )
            raise StudyError(message)
        if not all(isinstance(width, int) and width > 0 for width in hidden):
            message = (
                f"surrogate.arguments.hidden is {list(hidden)}: legal is a list of widths, "
                "e.g. [256, 256]"
            )
            raise StudyError(message)
        self.output_shape = tuple(output_shape)
        layers: list[nn.Module] = []
        width = n_inputs
        for next_width in hidden:
            layers += [nn.Linear(width, next_width), ACTIVATIONS[activation]()]
            width = next_width
        layers.append(nn.Linear(width, math.prod(self.output_shape)))
        self.layers = nn.Sequential(*layers)

    @property
    def trunk(self) -> nn.Module:
        """All layers except the last; see `melissa_gen.surrogates.output_sketch.Sketched`."""
        trunk: nn.Module = self.layers[:-1]
        return trunk

    @property
    def head(self) -> nn.Module:
        """The last layer, which is linear."""
        head: nn.Module = self.layers[-1]
        return head

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps inputs (n, n_inputs) to outputs (n, *output_shape)."""
        outputs: torch.Tensor = self.layers(inputs)
        return outputs.reshape(inputs.shape[0], *self.output_shape)

"""What surrogates with input fields share: the scale of these fields, and the checks of those that a user gives."""

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from melissa_gen.errors import DataError
from melissa_gen.surrogates.direct_surrogate import Surrogate
from melissa_gen.surrogates.prediction_arguments import (
    FIELD_SLACK,
    check_names,
    finite_numbers,
    warn_outside,
)

__all__ = ["InputFieldSurrogate"]

_ROUND_OFF, _TINY = 1e-7, 1e-30


class InputFieldSurrogate(Surrogate):
    """A surrogate whose network may get fields that belong to a whole simulation.

    Args:
        inputs: Name of each input field to its shape; may be empty.
        description: Arguments of `Surrogate`.
    """

    field_mean: torch.Tensor
    field_std: torch.Tensor

    def __init__(
        self, *, inputs: Mapping[str, Sequence[int]] | None = None, **description: Any
    ) -> None:
        self.inputs = {name: tuple(shape) for name, shape in (inputs or {}).items()}
        super().__init__(**description)
        if self.inputs:
            zeros = torch.zeros(len(self.inputs), dtype=torch.float64)
            self.register_buffer("field_mean", zeros)
            self.register_buffer("field_std", torch.ones_like(zeros))

    def settings(self) -> dict[str, Any]:
        """Returns the arguments beside those of `Surrogate`."""
        return {"inputs": self.inputs} if self.inputs else {}

    @property
    def input_values(self) -> int:
        """Number of values of all input fields."""
        return sum(map(math.prod, self.inputs.values()))

    def network_arguments(self, network: type[nn.Module]) -> dict[str, Any]:
        """Returns the arguments of the network's class, with `input_shapes` if it has this argument."""
        if self.inputs and "input_shapes" in inspect.signature(network).parameters:
            return {"input_shapes": self.inputs, **super().network_arguments(network)}
        return super().network_arguments(network)

    def example_inputs(self, rows: int) -> dict[str, torch.Tensor]:
        """Returns input fields of their usual values: name to `(rows, *shape)`."""
        return {
            name: self.field_mean[k].float().expand(rows, *shape).contiguous()
            for k, (name, shape) in enumerate(self.inputs.items())
        }

    def set_input_scale(self, mean: ArrayLike, std: ArrayLike) -> None:
        """Sets center and width of the scale of each input field.

        The network gets values of the same size as before and keeps its weights, so that the represented function
        changes.

        Args:
            mean: Mean of each input field `(k,)`.
            std: Standard deviation of each `(k,)`. A constant field is only centered.
        """
        scale = torch.from_numpy(self.usable_scale(mean, std))
        self.field_mean.copy_(scale[0])
        self.field_std.copy_(scale[1])

    @staticmethod
    def usable_scale(mean: ArrayLike, std: ArrayLike) -> NDArray[np.float64]:
        """Returns centers and widths `(2, k)` that `set_input_scale` sets: the width of a constant field is 1."""
        center, width = (np.asarray(one, np.float64) for one in (mean, std))
        # Round-off must not become the scale of a constant.
        constant = width <= _ROUND_OFF * np.maximum(np.abs(center), _TINY)
        scale: NDArray[np.float64] = np.stack([center, np.where(constant, 1.0, width)])
        return scale

    def standardized_inputs(
        self, inputs: Mapping[str, torch.Tensor], dtype: torch.dtype
    ) -> list[torch.Tensor]:
        """Returns the standardized values of each input field `(n, values)`.

        Args:
            inputs: Input field name to physical values `(n, *shape)`.
            dtype: Type of the result.
        """
        parts = []
        for k, name in enumerate(self.inputs):
            # In place, because a batch of large fields is copied once and not three times.
            scaled = inputs[name].to(torch.float64, copy=True)
            scaled = scaled.sub_(self.field_mean[k]).div_(self.field_std[k])
            parts.append(scaled.flatten(1).to(dtype))
        return parts

    def given_inputs(self, inputs: Mapping[str, ArrayLike]) -> dict[str, torch.Tensor]:
        """Returns the input fields of a simulation that is predicted `(*shape)`, float64.

        Raises:
            DataError: An input is missing, unknown, has another shape, or a value that is no finite number.
        """
        check_names("inputs", inputs, self.inputs, "the inputs of the simulation")
        given = {}
        for name, shape in self.inputs.items():
            array = finite_numbers(f"inputs['{name}']", inputs[name])
            if array.shape != shape:
                message = f"inputs['{name}'] has the shape {array.shape}; it must be {shape}"
                raise DataError(message)
            if name in self.ranges:
                warn_outside(name, array, self.ranges[name], FIELD_SLACK)
            given[name] = torch.from_numpy(array.copy()).to(self.center.device)
        return given

    def row(self, values: Sequence[float]) -> torch.Tensor:
        """Returns the values of the parameters as a row `(1, d)` on the device of the network."""
        return torch.tensor([values], dtype=torch.float64).to(self.center)

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """Sets the evaluation mode without gradients for a prediction."""
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(training)

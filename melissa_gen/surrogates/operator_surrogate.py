"""Neural operator: a network that maps the input fields of a simulation, the parameters and time to the fields."""

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
from melissa_gen.surrogates.derivatives import Derivatives, derivatives
from melissa_gen.surrogates.direct_surrogate import Surrogate
from melissa_gen.surrogates.evaluation import dataset_of
from melissa_gen.surrogates.input_scale import single_point

__all__ = ["OperatorSurrogate"]


class OperatorSurrogate(Surrogate):
    """A network that maps the input fields of a simulation, with parameters and time, to the fields at that time.

    The network is created as `cls(n_inputs=..., output_shape=..., **arguments)`, and with `input_shapes=...`, the name
    of each input field to its shape, if its constructor has this argument. It maps `(n, n_inputs)` to
    `(n, *output_shape)`. The inputs are the parameters, time, and the standardized values of the input fields, one
    field after the other: the last `sum(prod(shape))` inputs.

    Args:
        inputs: Name of each input field to its shape.
        description: Arguments of `Surrogate`.
    """

    task = "operator"
    field_mean: torch.Tensor
    field_std: torch.Tensor

    def __init__(self, *, inputs: Mapping[str, Sequence[int]], **description: Any) -> None:
        self.inputs = {name: tuple(shape) for name, shape in inputs.items()}
        super().__init__(**description)
        self.register_buffer("field_mean", torch.zeros(len(self.inputs), dtype=torch.float64))
        self.register_buffer("field_std", torch.ones(len(self.inputs), dtype=torch.float64))

    def settings(self) -> dict[str, Any]:
        """Returns the arguments beside those of `Surrogate`."""
        return {"inputs": self.inputs}

    @property
    def constants(self) -> int:
        """Number of inputs of the network that are the same at all points: the parameters and time."""
        return len(self.parameter_bounds) + 1

    @property
    def n_inputs(self) -> int:
        """Number of inputs of the network: those of `constants`, and all values of the input fields."""
        return self.constants + sum(map(math.prod, self.inputs.values()))

    def network_arguments(self, network: type[nn.Module]) -> dict[str, Any]:
        """Returns the arguments of the network's class, with `input_shapes` if it has this argument."""
        if "input_shapes" in inspect.signature(network).parameters:
            return {"input_shapes": self.inputs, **self.arguments}
        return self.arguments

    def random_inputs(self, rows: int) -> torch.Tensor:
        """Returns random inputs of the network."""
        constants = super().random_inputs(rows)[:, : self.constants]
        values = torch.randn(rows, self.n_inputs - constants.shape[1], dtype=constants.dtype)
        return torch.cat([constants, values], dim=1)

    def example_fields(self, rows: int) -> dict[str, torch.Tensor]:
        """Returns input fields of their usual values: name to `(rows, *shape)`."""
        means = self.field_mean.float()
        return {
            name: means[k].expand(rows, *shape).contiguous()
            for k, (name, shape) in enumerate(self.inputs.items())
        }

    def set_input_scale(self, sums: torch.Tensor) -> None:
        """Sets mean and standard deviation of each input field.

        Args:
            sums: Sum of the values, sum of their squares, and number of values of each input, `(k, 3)`.
        """
        count = sums[:, 2].clamp(min=1)
        mean = sums[:, 0] / count
        width = (sums[:, 1] / count - mean.square()).clamp(min=0).sqrt()
        # Round-off in the difference above must not become the scale of a constant.
        constant = width <= 1e-7 * mean.abs().clamp(min=1e-30)
        self.field_mean.copy_(mean)
        self.field_std.copy_(torch.where(constant, 1.0, width))

    def encoded(
        self, parameters: torch.Tensor, time: torch.Tensor, inputs: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Returns the inputs of the network `(n, n_inputs)`.

        Args:
            parameters: Physical values `(n, d)`.
            time: Physical times `(n,)`.
            inputs: Input field name to physical values `(n, *shape)`.
        """
        parts = [self.scale(parameters, time)[:, : self.constants]]
        for k, name in enumerate(self.inputs):
            # In place, because a batch of large fields is copied once and not three times.
            scaled = inputs[name].to(torch.float64, copy=True)
            scaled = scaled.sub_(self.field_mean[k]).div_(self.field_std[k])
            parts.append(scaled.flatten(1).to(parts[0].dtype))
        return torch.cat(parts, dim=1)

    def forward(
        self, parameters: torch.Tensor, time: torch.Tensor, *inputs: torch.Tensor, **_: Any
    ) -> dict[str, torch.Tensor]:
        """Predicts the fields: the mean over the ensemble's members.

        Args:
            parameters: Physical values `(n, d)`.
            time: Physical times `(n,)`.
            inputs: The input fields `(n, *shape)`, in the order of `inputs`.

        Returns:
            Field name to physical values `(n, *shape)`.
        """
        encoded = self.encoded(parameters, time, dict(zip(self.inputs, inputs, strict=True)))
        return self.physical(self.members(self.network(encoded)).mean(dim=1))

    def predict(  # type: ignore[override]
        self,
        parameters: Mapping[str, ArrayLike],
        inputs: Mapping[str, ArrayLike],
        time: ArrayLike,
    ) -> dict[str, NDArray[np.float32]]:
        """Predicts a simulation, for use outside of training.

        Args:
            parameters: Name of each parameter to its value.
            inputs: Name of each input field to its values `(*shape)`.
            time: Physical time, or times `(T,)`.

        Returns:
            Field name to `(*shape)`, or to `(T, *shape)` if `time` is an array.

        Raises:
            DataError: A parameter or an input is missing, unknown, or has another shape; or a parameter has several
                values.
        """
        times = np.atleast_1d(np.asarray(time, np.float64))
        values = single_point(self.ordered(parameters), self.parameter_bounds, times, self.times)
        point, given = self.row(values, inputs)
        with self.evaluated():
            found = self(
                point.expand(len(times), -1),
                torch.from_numpy(times).to(self.center),
                *(one.expand(len(times), *one.shape) for one in given),
            )
        arrays = {name: values.cpu().numpy() for name, values in found.items()}
        return {name: a if np.ndim(time) else a[0] for name, a in arrays.items()}

    def to_xarray(  # type: ignore[override]
        self,
        parameters: Mapping[str, ArrayLike],
        inputs: Mapping[str, ArrayLike],
        times: ArrayLike,
    ) -> Any:
        """Predicts a simulation as an `xarray.Dataset`: each field `(simulation, time, axis_0, ...)`.

        Args:
            parameters: As for `predict`.
            inputs: As for `predict`.
            times: Physical times `(T,)`.

        Raises:
            DataError: As for `predict`, or xarray is not installed.
        """
        moments = np.atleast_1d(np.asarray(times, np.float64))
        columns = {name: np.atleast_1d(np.asarray(value)) for name, value in parameters.items()}
        return dataset_of(columns, moments, [self.predict(parameters, inputs, moments)])

    def jacobian(  # type: ignore[override]
        self,
        parameters: Mapping[str, ArrayLike],
        inputs: Mapping[str, ArrayLike],
        time: float,
        directions: Mapping[str, ArrayLike] | None = None,
    ) -> Derivatives:
        """Computes the derivatives of the predicted fields with respect to parameters, time and input fields.

        Args:
            parameters: As for `predict`.
            inputs: As for `predict`.
            time: Physical time.
            directions: Name of an input field to an array `(*shape)`, along which its derivative is taken; other input
                fields are left out. None: the derivatives with respect to each value of each input field.

        Returns:
            Field name to the name of a parameter, `time` or an input field to the derivatives: of the shape of the
            field, or for input fields without `directions` `(*shape of the field, *shape of the input)`.

        Raises:
            DataError: As for `predict`, or a direction has another name or shape, or there are too many derivatives.
        """
        values = single_point(self.ordered(parameters), self.parameter_bounds, time, self.times)
        return self.derivatives(values, inputs, {"time": time}, directions)

    def derivatives(
        self,
        parameters: Sequence[float],
        inputs: Mapping[str, ArrayLike],
        times: Mapping[str, float],
        directions: Mapping[str, ArrayLike] | None,
    ) -> Derivatives:
        """Returns the derivatives for `jacobian`; `times` holds the time if the network has this input."""
        given = dict(zip(self.inputs, self.row(parameters, inputs)[1], strict=True))
        numbers = {**dict(zip(self.parameter_bounds, parameters, strict=True)), **times}

        def predicted(rows: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
            point = torch.stack([rows[name] for name in self.parameter_bounds], dim=1)
            found: Mapping[str, torch.Tensor] = self(
                point, *(rows[name] for name in times), *(rows[name] for name in self.inputs)
            )
            return found

        with self.evaluated():
            return derivatives(self, predicted, numbers, given, directions)

    def row(
        self, parameters: Sequence[float], inputs: Mapping[str, ArrayLike]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Returns the parameters `(1, d)` and the input fields `(*shape)` of a simulation that is predicted.

        Raises:
            DataError: An input is missing, unknown, or has another shape.
        """
        if set(inputs) != set(self.inputs):
            message = (
                f"inputs holds {', '.join(inputs) or 'nothing'}; it must hold {', '.join(self.inputs)}, the inputs of "
                "the simulation"
            )
            raise DataError(message)
        given = []
        for name, shape in self.inputs.items():
            array = np.array(inputs[name], np.float64)
            if array.shape != shape:
                message = f"inputs['{name}'] has the shape {array.shape}; it must be {shape}"
                raise DataError(message)
            given.append(torch.from_numpy(array).to(self.center.device))
        return torch.tensor([parameters], dtype=torch.float64).to(self.center), given

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

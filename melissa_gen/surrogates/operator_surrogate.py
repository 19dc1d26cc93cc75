"""Neural operator: a network that maps the input fields of a simulation, the parameters and time to the fields."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from melissa_gen.surrogates.derivatives import Derivatives, derivatives
from melissa_gen.surrogates.evaluation import dataset_of
from melissa_gen.surrogates.input_field_surrogate import InputFieldSurrogate
from melissa_gen.surrogates.prediction_arguments import (
    check_distinct,
    finite_numbers,
    single_point,
    single_time,
)

__all__ = ["OperatorSurrogate"]


class OperatorSurrogate(InputFieldSurrogate):
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

    def __init__(self, *, inputs: Mapping[str, Sequence[int]], **description: Any) -> None:
        super().__init__(inputs=inputs, **description)

    @property
    def constants(self) -> int:
        """Number of inputs of the network that are the same at all points: the parameters and time."""
        return len(self.parameter_bounds) + 1

    @property
    def n_inputs(self) -> int:
        """Number of inputs of the network: those of `constants`, and all values of the input fields."""
        return self.constants + self.input_values

    def random_inputs(self, rows: int) -> torch.Tensor:
        """Returns random inputs of the network."""
        constants = super().random_inputs(rows)[:, : self.constants]
        values = torch.randn(rows, self.n_inputs - constants.shape[1], dtype=constants.dtype)
        return torch.cat([constants, values], dim=1)

    def example_fields(self, rows: int) -> dict[str, torch.Tensor]:
        """Returns input fields of their usual values: name to `(rows, *shape)`."""
        return self.example_inputs(rows)

    def encoded(
        self, parameters: torch.Tensor, time: torch.Tensor, inputs: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Returns the inputs of the network `(n, n_inputs)`.

        Args:
            parameters: Physical values `(n, d)`.
            time: Physical times `(n,)`.
            inputs: Input field name to physical values `(n, *shape)`.
        """
        constants = self.scale(parameters, time)[:, : self.constants]
        return torch.cat([constants, *self.standardized_inputs(inputs, constants.dtype)], dim=1)

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
        values = single_point(self.ordered(parameters), self.parameter_bounds, time, self.times)
        times = np.atleast_1d(np.asarray(time, np.float64))
        point, given = self.row(values), self.given_inputs(inputs).values()
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
        moments = np.atleast_1d(finite_numbers("times", times))
        found = self.predict(parameters, inputs, moments)
        columns = {name: np.atleast_1d(np.asarray(value)) for name, value in parameters.items()}
        return dataset_of(columns, moments, [found])

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
        moment = single_time(time)
        values = single_point(self.ordered(parameters), self.parameter_bounds, moment, self.times)
        return self.derivatives(values, inputs, {"time": moment}, directions)

    def derivatives(
        self,
        parameters: Sequence[float],
        inputs: Mapping[str, ArrayLike],
        times: Mapping[str, float],
        directions: Mapping[str, ArrayLike] | None,
    ) -> Derivatives:
        """Returns the derivatives for `jacobian`; `times` holds the time if the network has this input."""
        check_distinct(
            "jacobian",
            [
                ("physical time", times),
                ("input", self.inputs),
                ("parameter", self.parameter_bounds),
            ],
        )
        given = self.given_inputs(inputs)
        numbers = {**dict(zip(self.parameter_bounds, parameters, strict=True)), **times}

        def predicted(rows: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
            point = torch.stack([rows[name] for name in self.parameter_bounds], dim=1)
            found: Mapping[str, torch.Tensor] = self(
                point, *(rows[name] for name in times), *(rows[name] for name in self.inputs)
            )
            return found

        with self.evaluated():
            return derivatives(self, predicted, numbers, given, directions)

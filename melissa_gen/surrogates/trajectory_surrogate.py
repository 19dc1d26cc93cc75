"""Neural operator that maps the input fields and parameters of a simulation to all of its time steps in one pass."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from melissa_gen.surrogates.derivatives import Derivatives
from melissa_gen.surrogates.evaluation import dataset_of
from melissa_gen.surrogates.operator_surrogate import OperatorSurrogate
from melissa_gen.surrogates.prediction_arguments import single_point

__all__ = ["TrajectorySurrogate"]


class TrajectorySurrogate(OperatorSurrogate):
    """A network that maps the input fields of a simulation, with the parameters, to the fields at all time steps.

    The network is created as that of `OperatorSurrogate`, and with `trajectory=T`, the number of time steps, if its
    constructor has this argument. It maps `(n, n_inputs)` to `(n, T, *output_shape)`, and time is not an input.

    Args:
        time_steps: Number of time steps T of a simulation.
        description: Arguments of `OperatorSurrogate`.
    """

    task = "operator_trajectory"

    def __init__(self, *, time_steps: int, **description: Any) -> None:
        self.time_steps = time_steps
        super().__init__(**description)

    def settings(self) -> dict[str, Any]:
        """Returns the arguments beside those of `Surrogate`."""
        return {**super().settings(), "time_steps": self.time_steps}

    @property
    def network_shape(self) -> tuple[int, ...]:
        """Shape of the network's output for a row, without ensemble members: `(T, *output_shape)`."""
        return (self.time_steps, *self.output_shape)

    @property
    def moments(self) -> NDArray[np.float64]:
        """Physical times of the time steps, `(T,)`."""
        return np.linspace(*self.times, self.time_steps)

    @property
    def constants(self) -> int:
        """Number of inputs of the network that are the same at all points: the parameters."""
        return len(self.parameter_bounds)

    def network_arguments(self, network: type[nn.Module]) -> dict[str, Any]:
        """Returns the arguments of the network's class, with `trajectory` if it has this argument."""
        given = super().network_arguments(network)
        if "trajectory" in inspect.signature(network).parameters:
            return {"trajectory": self.time_steps, **given}
        return given

    def forward(
        self, parameters: torch.Tensor, *inputs: torch.Tensor, **_: Any
    ) -> dict[str, torch.Tensor]:
        """Predicts the fields at all time steps: the mean over the ensemble's members.

        Args:
            parameters: Physical values `(n, d)`.
            inputs: The input fields `(n, *shape)`, in the order of `inputs`.

        Returns:
            Field name to physical values `(n, T, *shape)`.
        """
        time = parameters.new_full(parameters.shape[:1], self.times[0])
        encoded = self.encoded(parameters, time, dict(zip(self.inputs, inputs, strict=True)))
        mean = self.members(self.network(encoded)).mean(dim=1)
        found = self.physical(mean.flatten(0, 1))
        return {
            name: values.reshape(-1, self.time_steps, *self.fields[name])
            for name, values in found.items()
        }

    def predict(  # type: ignore[override]
        self, parameters: Mapping[str, ArrayLike], inputs: Mapping[str, ArrayLike]
    ) -> dict[str, NDArray[np.float32]]:
        """Predicts all time steps of a simulation, for use outside of training.

        Args:
            parameters: Name of each parameter to its value.
            inputs: Name of each input field to its values `(*shape)`.

        Returns:
            Field name to `(T, *shape)`; the times are in `moments`.

        Raises:
            DataError: A parameter or an input is missing, unknown, or has another shape; or a parameter has several
                values.
        """
        values = single_point(
            self.ordered(parameters), self.parameter_bounds, self.times, self.times
        )
        point, given = self.row(values), self.given_inputs(inputs).values()
        with self.evaluated():
            found = self(point, *(one[None] for one in given))
        return {name: values[0].cpu().numpy() for name, values in found.items()}

    def to_xarray(  # type: ignore[override]
        self, parameters: Mapping[str, ArrayLike], inputs: Mapping[str, ArrayLike]
    ) -> Any:
        """Predicts a simulation as an `xarray.Dataset`: each field `(simulation, time, axis_0, ...)`.

        Args:
            parameters: As for `predict`.
            inputs: As for `predict`.

        Raises:
            DataError: As for `predict`, or xarray is not installed.
        """
        found = self.predict(parameters, inputs)
        columns = {name: np.atleast_1d(np.asarray(value)) for name, value in parameters.items()}
        return dataset_of(columns, self.moments, [found])

    def jacobian(  # type: ignore[override]
        self,
        parameters: Mapping[str, ArrayLike],
        inputs: Mapping[str, ArrayLike],
        directions: Mapping[str, ArrayLike] | None = None,
    ) -> Derivatives:
        """Computes the derivatives of the predicted trajectory with respect to parameters and input fields.

        Args:
            parameters: As for `predict`.
            inputs: As for `predict`.
            directions: As for `OperatorSurrogate.jacobian`.

        Returns:
            Field name to the name of a parameter or an input field to the derivatives: `(T, *shape)`, or for input
            fields without `directions` `(T, *shape, *shape of the input)`.

        Raises:
            DataError: As for `OperatorSurrogate.jacobian`.
        """
        values = single_point(
            self.ordered(parameters), self.parameter_bounds, self.times, self.times
        )
        return self.derivatives(values, inputs, {}, directions)

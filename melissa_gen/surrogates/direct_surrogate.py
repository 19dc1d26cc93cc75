"""Direct surrogate: a network that maps (parameters, time) to the fields at that time."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from melissa_gen.errors import DataError, StudyError, nearest
from melissa_gen.surrogates.network_class import construct, input_dtype, load_class
from melissa_gen.surrogates.network_ensemble import Kind, ensemble_of, networks_of

__all__ = ["Surrogate"]


class Scaling(NamedTuple):
    """Scales physical inputs to the network's inputs in [-1, 1]."""

    center: torch.Tensor
    half_width: torch.Tensor
    dtype: torch.dtype

    def __call__(self, parameters: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Concatenates and scales parameters `(n, d)` and times `(n,)` to inputs `(n, d + 1)`."""
        inputs = torch.cat([parameters, time[:, None]], dim=1)
        return ((inputs - self.center) / self.half_width).to(self.dtype)


class Surrogate(nn.Module):
    """A network with input scaling and output scaling, so that both sides are in physical units.

    Inputs are scaled from their bounds to [-1, 1]. Each field is standardized by one mean and one
    standard deviation, which `set_output_statistics` sets from the first data. The network is
    created as `cls(n_inputs=..., output_shape=..., **arguments)`, where `n_inputs` counts the
    parameters and time. It maps `(n, n_inputs)` to `(n, *output_shape)`, where `output_shape` is

    - for one field: the field's shape;
    - for several fields of the same shape: (number of fields, *shape), in the order given;
    - for fields of different shapes: (total number of values,), the flattened fields concatenated.

    Args:
        parameters: Name of each parameter to its (low, high), in the order of the input vector.
        times: First and last physical time.
        fields: Name of each field to its shape.
        class_path: "package.module.Class" or "file.py:Class".
        arguments: Further arguments of the class.
        base_folder: Folder to which a relative file path refers.
        ensemble: Kind and number of members, or None for a single network; see
            `melissa_gen.surrogates.network_ensemble`.

    Attributes:
        network: The network. The output of an ensemble has a member axis after the batch axis.
        output_shape: Shape of the output of one member without the batch axis.

    Raises:
        StudyError: The class cannot be imported, or its output has the wrong shape.

    Example:
        >>> surrogate = Surrogate({"viscosity": (0.1, 1.0)}, (0, 2), {"velocity": (64,)})
        >>> surrogate.predict({"viscosity": 0.5}, time=1.0)["velocity"].shape
        (64,)
    """

    center: torch.Tensor
    half_width: torch.Tensor
    output_mean: torch.Tensor
    output_std: torch.Tensor

    def __init__(
        self,
        parameters: Mapping[str, Sequence[float]],
        times: Sequence[float],
        fields: Mapping[str, Sequence[int]],
        class_path: str = "melissa_gen.surrogates.MLP",
        arguments: Mapping[str, Any] | None = None,
        base_folder: str | Path = ".",
        ensemble: tuple[Kind, int] | None = None,
    ) -> None:
        super().__init__()
        self.parameter_bounds = {k: (float(v[0]), float(v[1])) for k, v in parameters.items()}
        self.times = (float(times[0]), float(times[1]))
        self.fields = {name: tuple(shape) for name, shape in fields.items()}
        self.class_path = class_path
        self.arguments = dict(arguments or {})
        self.base_folder = Path(base_folder)
        self.output_shape = _output_shape(list(self.fields.values()))

        bounds = torch.tensor([*self.parameter_bounds.values(), self.times], dtype=torch.float64)
        half = (bounds[:, 1] - bounds[:, 0]) / 2
        self.register_buffer("center", bounds.mean(dim=1))
        # A constant input is scaled to 0.
        self.register_buffer("half_width", torch.where(half > 0, half, 1.0))
        self.register_buffer("output_mean", torch.zeros(len(fields), dtype=torch.float64))
        self.register_buffer("output_std", torch.ones(len(fields), dtype=torch.float64))

        network = load_class(class_path, base_folder)
        n_inputs = len(self.parameter_bounds) + 1
        self.ensemble = ensemble
        if ensemble is None:
            self.network = construct(network, n_inputs, self.output_shape, self.arguments)
        else:
            self.network = ensemble_of(
                *ensemble,
                self.output_shape,
                lambda shape: construct(network, n_inputs, shape, self.arguments),
            )
        self._check_network(n_inputs)

    def forward(
        self, parameters: torch.Tensor, time: torch.Tensor, *, standardized: bool = False
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """Predicts fields. The prediction of an ensemble is the mean over its members.

        Args:
            parameters: Physical values (n, d).
            time: Physical times (n,).
            standardized: Return the standardized output, which is comparable with `target`.

        Returns:
            Physical values `(n, *shape)` if there is one field, else name to `(n, *shape)`. The
            standardized output is `(n, *output_shape)`.
        """
        output = self.member_outputs(parameters, time).mean(dim=1)
        if standardized:
            return output
        physical = {
            name: values.float() * self.output_std[k].float() + self.output_mean[k].float()
            for k, (name, values) in enumerate(self.split(output).items())
        }
        return physical if len(physical) > 1 else next(iter(physical.values()))

    def member_outputs(self, parameters: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Computes the standardized outputs of all M members; M = 1 without an ensemble.

        Args:
            parameters: Physical values (n, d).
            time: Physical times (n,).

        Returns:
            Outputs (n, M, *output_shape).
        """
        return self.members(self.network(self.scale(parameters, time)))

    def members(self, output: torch.Tensor) -> torch.Tensor:
        """Returns the network's output with a member axis: `(n, M, *output_shape)`."""
        return output if self.ensemble else output.unsqueeze(1)

    def networks(self) -> list[nn.Module]:
        """Returns the user's networks: one, or all members of an ensemble of separate networks."""
        return networks_of(self.network)

    def scale(self, parameters: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Scales parameters `(n, d)` and times `(n,)` to network inputs `(n, d + 1)` in [-1, 1]."""
        return self.scaling()(parameters, time)

    def middle(self) -> NDArray[np.float64]:
        """Returns the middle of the bounds of parameters and time `(1, d + 1)`, in physical units."""
        bounds = np.array([*self.parameter_bounds.values(), self.times], np.float64)
        middle: NDArray[np.float64] = bounds.mean(axis=1, keepdims=True).T
        return middle

    def scaling(self) -> "Scaling":
        """Returns the function behind `scale`, which holds no reference to the network."""
        return Scaling(self.center, self.half_width, input_dtype(self.network))

    def target(self, fields: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Standardizes simulated fields and arranges them like the network's output.

        Args:
            fields: Name to physical values (n, *shape).

        Returns:
            Target (n, *output_shape), float32.
        """
        parts = [
            ((fields[name] - self.output_mean[k]) / self.output_std[k]).float()
            for k, name in enumerate(self.fields)
        ]
        if len(parts) == 1:
            return parts[0]
        if len(self.output_shape) == 1 and len(set(self.fields.values())) > 1:
            return torch.cat([part.reshape(len(part), -1) for part in parts], dim=1)
        return torch.stack(parts, dim=1)

    def set_output_statistics(self, mean: Mapping[str, float], std: Mapping[str, float]) -> None:
        """Sets the mean and standard deviation of each field. A constant field (std 0) is only centered.

        Args:
            mean: Field name to the mean of its values.
            std: Field name to the standard deviation of its values.

        Raises:
            DataError: A value is missing or not finite, or a deviation is negative.
        """
        for k, name in enumerate(self.fields):
            center, spread = float(mean.get(name, math.nan)), float(std.get(name, math.nan))
            if not (math.isfinite(center) and math.isfinite(spread) and spread >= 0):
                message = (
                    f"field '{name}' can't be standardized with mean {center} and std {spread}"
                )
                raise DataError(message)
            self.output_mean[k] = center
            self.output_std[k] = spread if spread > 0 else 1.0

    def predict(
        self, parameters: Mapping[str, ArrayLike], time: ArrayLike
    ) -> dict[str, NDArray[np.float32]]:
        """Predicts fields from named physical values, for use outside of training.

        Args:
            parameters: Name of each parameter to its value, or to values `(n,)`.
            time: Physical time, or times `(n,)`.

        Returns:
            Field name to `(*shape)`, or to `(n, *shape)` if any input is an array.

        Raises:
            DataError: A parameter is missing or unknown.
        """
        for name in parameters:
            if name not in self.parameter_bounds:
                hint = nearest(name, self.parameter_bounds)
                message = f"the surrogate has no parameter '{name}'{hint}"
                raise DataError(message)
        if missing := [name for name in self.parameter_bounds if name not in parameters]:
            message = f"the surrogate also needs a value of {', '.join(missing)}"
            raise DataError(message)
        given = [parameters[name] for name in self.parameter_bounds]
        columns = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in [*given, time]))
        single = columns[0].ndim == 0
        inputs = torch.from_numpy(np.stack([np.atleast_1d(x) for x in columns], axis=1))
        inputs = inputs.to(self.center.device)
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                answer = self(inputs[:, :-1], inputs[:, -1])
        finally:
            self.train(training)
        named = answer if isinstance(answer, dict) else {next(iter(self.fields)): answer}
        arrays = {name: values.cpu().numpy() for name, values in named.items()}
        return {name: values[0] if single else values for name, values in arrays.items()}

    def split(self, output: torch.Tensor) -> dict[str, torch.Tensor]:
        """Splits the output `(n, *output_shape)` by field: name to `(n, *shape)`, standardized."""
        flat = output.reshape(len(output), math.prod(output.shape[1:]))
        sizes = [math.prod(shape) for shape in self.fields.values()]
        parts: tuple[torch.Tensor, ...] = torch.split(flat, sizes, dim=1)
        return {
            name: part.reshape(len(output), *shape)
            for (name, shape), part in zip(self.fields.items(), parts, strict=True)
        }

    def _check_network(self, n_inputs: int) -> None:
        """Runs the network once on zeros, so that a wrong shape is reported before the study starts."""
        training = self.network.training
        self.network.eval()
        try:
            with torch.no_grad():
                found = self.network(torch.zeros(2, n_inputs, dtype=input_dtype(self.network)))
        except Exception as error:
            message = (
                f"surrogate.class '{self.class_path}' fails on inputs of shape (2, {n_inputs}): "
                f"{type(error).__name__}: {error}"
            )
            raise StudyError(message) from error
        finally:
            self.network.train(training)
        shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        if self.ensemble is not None and shape == (2, self.ensemble[1], *self.output_shape):
            return
        if shape != (2, *self.output_shape):
            message = (
                f"surrogate.class '{self.class_path}' returned {shape} for inputs "
                f"(2, {n_inputs}); it must be {(2, *self.output_shape)}, i.e. (n, *output_shape)"
            )
            raise StudyError(message)


def _output_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    if not shapes:
        message = "a surrogate needs at least one field"
        raise StudyError(message)
    if len(shapes) == 1:
        return shapes[0]
    if len(set(shapes)) == 1:
        return (len(shapes), *shapes[0])
    return (sum(math.prod(shape) for shape in shapes),)

"""The direct task: one network from (parameters, time) straight to the fields at that time."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from melissa_gen.errors import DataError, StudyError, nearest
from melissa_gen.surrogates.network_class import construct, load_class
from melissa_gen.surrogates.network_ensemble import Kind, ensemble_of, parts_of

__all__ = ["Surrogate"]


class Scaling(NamedTuple):
    """From physical inputs to those of a network, in [-1, 1]."""

    centre: torch.Tensor
    half_width: torch.Tensor
    dtype: torch.dtype

    def __call__(self, parameters: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Lays (n, d) and (n,) out as (n, d + 1)."""
        inputs = torch.cat([parameters, time[:, None]], dim=1)
        return ((inputs - self.centre) / self.half_width).to(self.dtype)


class Surrogate(nn.Module):
    """A network between normalisation layers, so that it is asked and answers in physical units.

    Inputs are scaled from their bounds to [-1, 1]; each field is standardised by one mean and one
    standard deviation, which the first data set. The network is made as
    `cls(n_inputs=..., output_shape=..., **arguments)`, n_inputs being the parameters and time, and
    maps (n, n_inputs) to (n, *output_shape), where output_shape is

    - one field: the field's shape;
    - several fields of one shape: (number of fields, *shape), in the order given;
    - fields of different shapes: (total number of values,), the flattened fields one after another.

    Args:
        parameters: Name of each parameter to its (low, high), in the order of the input vector.
        times: First and last physical time.
        fields: Name of each field to its shape.
        class_path: "package.module.Class" or "file.py:Class".
        arguments: Further arguments of the class.
        base_folder: Folder that a relative file starts from.
        ensemble: Kind and number of members, or None for a single network; see `ensemble.py`.

    Attributes:
        network: The network itself; that of an ensemble puts an axis of members after the batch's.
        output_shape: Shape of its output without the batch axis.

    Raises:
        StudyError: The class can't be had, or its output has another shape.

    Example:
        >>> surrogate = Surrogate({"viscosity": (0.1, 1.0)}, (0, 2), {"velocity": (64,)})
        >>> surrogate.predict({"viscosity": 0.5}, time=1.0)["velocity"].shape
        (64,)
    """

    centre: torch.Tensor
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
        self.register_buffer("centre", bounds.mean(dim=1))
        # An input that never varies is 0 to the network.
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
        self._try_network(n_inputs)

    def forward(
        self, parameters: torch.Tensor, time: torch.Tensor, *, standardised: bool = False
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """Predicts fields; an ensemble answers with the mean of its members.

        Args:
            parameters: Physical values (n, d).
            time: Physical times (n,).
            standardised: Return the network's own output, to be compared with `target`.

        Returns:
            Physical values (n, *shape) of the only field, or name to (n, *shape) of several;
            standardised: (n, *output_shape).
        """
        output = self.member_outputs(parameters, time).mean(dim=1)
        if standardised:
            return output
        physical = {
            name: values.float() * self.output_std[k].float() + self.output_mean[k].float()
            for k, (name, values) in enumerate(self.split(output).items())
        }
        return physical if len(physical) > 1 else next(iter(physical.values()))

    def member_outputs(self, parameters: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """The standardised outputs of all M members, M = 1 without an ensemble.

        Args:
            parameters: Physical values (n, d).
            time: Physical times (n,).

        Returns:
            Outputs (n, M, *output_shape).
        """
        return self.members(self.network(self.scale(parameters, time)))

    def members(self, output: torch.Tensor) -> torch.Tensor:
        """Lays the network's output out as (n, M, *output_shape)."""
        return output if self.ensemble else output.unsqueeze(1)

    def networks(self) -> list[nn.Module]:
        """The user's networks themselves: one, or all members of an ensemble of separate ones."""
        return parts_of(self.network)

    def scale(self, parameters: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Lays physical inputs out as the network's: (n, d) and (n,) to (n, d + 1) in [-1, 1]."""
        return self.scaling()(parameters, time)

    def scaling(self) -> "Scaling":
        """What `scale` does, without the network."""
        weight = next(self.network.parameters(), None)
        dtype = torch.float32 if weight is None else weight.dtype
        return Scaling(self.centre, self.half_width, dtype)

    def target(self, fields: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Standardises simulated fields and lays them out as the network's output.

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
        """Sets what the fields are standardised by; a constant field (std 0) is only centred.

        Args:
            mean: Field name to the mean of its values.
            std: Field name to their standard deviation.

        Raises:
            DataError: A value is missing or not finite, or a deviation is negative.
        """
        for k, name in enumerate(self.fields):
            centre, spread = float(mean.get(name, math.nan)), float(std.get(name, math.nan))
            if not (math.isfinite(centre) and math.isfinite(spread) and spread >= 0):
                message = f"field '{name}' can't be standardised by mean {centre}, std {spread}"
                raise DataError(message)
            self.output_mean[k] = centre
            self.output_std[k] = spread if spread > 0 else 1.0

    def predict(
        self, parameters: Mapping[str, ArrayLike], time: ArrayLike
    ) -> dict[str, NDArray[np.float32]]:
        """Predicts fields from named physical values, for use outside of training.

        Args:
            parameters: Every parameter's value, or values (n,).
            time: Physical time, or times (n,).

        Returns:
            Field name to (*shape), or to (n, *shape) if anything was given as an array.

        Raises:
            DataError: A parameter is missing, or there is no such one.
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
        inputs = inputs.to(self.centre.device)
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
        """Parts the output (n, *output_shape) by field: name to (n, *shape), standardised."""
        flat = output.reshape(len(output), math.prod(output.shape[1:]))
        sizes = [math.prod(shape) for shape in self.fields.values()]
        parts: tuple[torch.Tensor, ...] = torch.split(flat, sizes, dim=1)
        return {
            name: part.reshape(len(output), *shape)
            for (name, shape), part in zip(self.fields.items(), parts, strict=True)
        }

    def _try_network(self, n_inputs: int) -> None:
        """Runs the network once on zeros, so that a wrong shape is found before the study starts."""
        training = self.network.training
        self.network.eval()
        try:
            with torch.no_grad():
                found = self.network(torch.zeros(2, n_inputs))
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

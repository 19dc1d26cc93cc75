"""Neural operators of the package neuraloperator, conditioned on parameters and time."""

import contextlib
import importlib
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

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
from melissa_gen.surrogates.grid import Grid

__all__ = ["FNO", "TFNO", "UNO", "any_number_of_rows"]


class FNO(nn.Module):
    """Fourier neural operator (Li et al., arXiv 2010.08895) on a regular grid.

    Its input fields are the coordinates of the points. Parameters and time enter in one of two ways: `channels` adds
    each of them as a constant input field; `film` scales and shifts the channels after the lifting and after each
    Fourier layer by numbers that a small network computes from them (Perez et al., arXiv 1709.07871), at first by those
    of the identity.

    Args:
        n_inputs: Number of inputs: parameters and time.
        output_shape: Shape of the output without the batch axis.
        n_modes: Fourier modes that are kept along each axis of the grid, or one number for all axes; None keeps up
            to 16 of them.
        hidden_channels: Channels of the layers.
        conditioning: `channels` or `film`.
        dimensions: Number of the last axes of the output that belong to the grid, at most 3; the axes before them are
            channels. None takes two, or the only one.
        history: Number of time steps whose fields are the last inputs; the task `autoregressive` sets it.
        input_shapes: Name of each input field, which are the last inputs, to its shape; the task `operator` sets it.
        trajectory: Number of time steps, which are the first axis of the output; the task `operator` sets it if it
            predicts trajectories. The time steps are channels, unless `dimensions` counts all axes of the output: then
            time is an axis of the grid, along which input fields are repeated.
        ensemble_heads: Number of heads of an ensemble, which are the first axis of `output_shape` then; the surrogate
            sets it. Each head has channels of its own in the last layer.
        arguments: Further arguments of the class in `neuralop.models`.

    Raises:
        StudyError: The package neuraloperator is not installed, or an argument is not legal.
    """

    model: ClassVar[str] = "FNO"

    def __init__(
        self,
        n_inputs: int,
        output_shape: Sequence[int],
        n_modes: int | Sequence[int] | None = None,
        hidden_channels: int = 32,
        conditioning: Conditioning = "channels",
        dimensions: int | None = None,
        history: int = 0,
        input_shapes: Mapping[str, Sequence[int]] | None = None,
        trajectory: int = 0,
        ensemble_heads: int = 0,
        **arguments: Any,
    ) -> None:
        super().__init__()
        require_conditioning(conditioning)
        self.output_shape = tuple(output_shape)
        self._grid = Grid.of(
            output_shape, dimensions, trajectory=trajectory, ensemble_heads=ensemble_heads
        )
        self._given = self._grid.given_channels(history, input_shapes)
        cls = _model(self.model)
        given = self._arguments(n_modes, arguments)
        with_film = conditioning == "film"
        channels = self._grid.input_channels(n_inputs, self._given)
        # Some models print their settings.
        with contextlib.redirect_stdout(io.StringIO()):
            self.operator: Any = cls(
                in_channels=self._given if with_film else channels,
                out_channels=self._grid.channels,
                hidden_channels=hidden_channels,
                **given,
            )
        self.embedding: nn.Sequential | None = None
        if with_film:
            if not self._given and self.operator.positional_embedding is None:
                message = (
                    "surrogate.arguments.conditioning is 'film', with which the coordinates of the points are the only "
                    "input fields here: leave out surrogate.arguments.positional_embedding, or set conditioning to "
                    "channels"
                )
                raise StudyError(message)
            width = 4 * hidden_channels
            self.embedding = condition_of(channels - self._given, width)
            layers = self._layer_channels(hidden_channels)
            self.films = films_of(width, [hidden_channels, *layers])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps inputs (n, n_inputs) to outputs (n, *output_shape)."""
        fields, constants = self._grid.fields_and_constants(inputs, self._given)
        if self.embedding is None:
            channels = torch.cat([fields, self._grid.spread(constants)], dim=1)
            outputs: torch.Tensor = self.operator(channels)
        else:
            condition = self.embedding(constants)
            numbers = [film(condition) for film in self.films]
            # The package's own forward pass, in which lifting and layers are followed by scale and shift. Nothing is
            # stored in the modules, so that several threads can use one network.
            outputs = type(self.operator).forward(_Conditioned(self.operator, numbers), fields)
        return outputs.reshape(inputs.shape[0], *self.output_shape)

    def _layer_channels(self, hidden_channels: int) -> list[int]:
        """Returns the number of channels after each Fourier layer."""
        return [hidden_channels] * self.operator.n_layers

    def _arguments(
        self, n_modes: int | Sequence[int] | None, arguments: dict[str, Any]
    ) -> dict[str, Any]:
        points = self._grid.points
        if n_modes is None:
            modes = [min(16, count) for count in points]
        else:
            modes = [n_modes] * len(points) if isinstance(n_modes, int) else list(n_modes)
        if len(modes) != len(points) or any(
            not 1 <= mode <= count for mode, count in zip(modes, points, strict=True)
        ):
            message = (
                f"surrogate.arguments.n_modes is {n_modes}: legal is one number for each axis of the grid, "
                f"at most {list(points)}"
            )
            raise StudyError(message)
        return {"n_modes": tuple(modes), **arguments}


class TFNO(FNO):
    """Fourier neural operator with factorized weights (Kossaifi et al., arXiv 2310.00120); arguments as in `FNO`."""

    model = "TFNO"


class UNO(FNO):
    """U-shaped neural operator (Rahman et al., arXiv 2204.11127); arguments as in `FNO`.

    Without further arguments it has four layers, of which the inner ones work at half the resolution.
    """

    model = "UNO"

    def _arguments(
        self, n_modes: int | Sequence[int] | None, arguments: dict[str, Any]
    ) -> dict[str, Any]:
        modes = super()._arguments(n_modes, {})["n_modes"]
        axes, layers = len(modes), int(arguments.get("n_layers", 4))
        half = [[0.5] * axes, *[[1.0] * axes] * (layers - 2), [2.0] * axes]
        defaults = {
            "n_layers": layers,
            "uno_out_channels": [32] * layers,
            "uno_n_modes": [list(modes)] * layers,
            "uno_scalings": half,
            "channel_mlp_skip": "linear",
        }
        return defaults | arguments

    def _layer_channels(self, hidden_channels: int) -> list[int]:
        return list(self.operator.uno_out_channels)


class _Conditioned:
    """A model of the package in one forward pass: scale and shift follow its lifting and each Fourier layer.

    Args:
        operator: The model. All but its lifting and its layers are used as they are.
        numbers: Scales and shifts after the lifting and each layer, as for `modulated`.
    """

    def __init__(self, operator: Any, numbers: Sequence[torch.Tensor]) -> None:
        lifting, *layers = numbers
        self._operator, self._layers = operator, layers
        self.lifting = _followed(operator.lifting, lifting)
        # UNO has a module for each layer; FNO has one, which receives the number of the layer.
        self.fno_blocks: Any = self._layer
        if isinstance(operator.fno_blocks, nn.ModuleList):
            blocks = zip(operator.fno_blocks, layers, strict=True)
            self.fno_blocks = [_followed(*one) for one in blocks]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operator, name)

    def _layer(self, fields: torch.Tensor, layer: int, **settings: Any) -> torch.Tensor:
        block = self._operator.fno_blocks
        return modulated(block(fields, layer, **settings), self._layers[layer])


def _followed(module: nn.Module, numbers: torch.Tensor) -> Callable[..., torch.Tensor]:
    """Returns a function that calls a module, then scales and shifts its channels."""

    def call(*given: Any, **settings: Any) -> torch.Tensor:
        return modulated(module(*given, **settings), numbers)

    return call


def _model(name: str) -> type[nn.Module]:
    try:
        models = importlib.import_module("neuralop.models")
    except ImportError as error:
        message = (
            f"surrogate.class {name} needs the package neuraloperator: "
            f"pip install 'melissa-gen[operators]' ({error})"
        )
        raise StudyError(message) from error
    found: type[nn.Module] = getattr(models, name)
    return found


@contextlib.contextmanager
def any_number_of_rows() -> Iterator[None]:
    """Lets neural operators be traced for any number of rows within the block.

    The package and torch choose the order of tensor contractions by the shapes, which would fix the number of rows.
    """
    plugins = sys.modules.get("tensorly.plugins")
    if plugins is None or plugins.PREVIOUS_EINSUM is None:
        yield
        return
    plugins.use_default_einsum()
    try:
        with torch.backends.opt_einsum.flags(enabled=False, strategy=None):
            yield
    finally:
        # As the package does when it is imported.
        plugins.use_opt_einsum("optimal")

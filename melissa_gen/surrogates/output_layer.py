"""Changes the last layer of a network so that its output is scaled and shifted, and what that means in training."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from melissa_gen.surrogates.last_layer import last_executed_layer
from melissa_gen.surrogates.network_class import input_dtype

__all__ = ["Rescaling", "rescale_outputs"]

_TOLERANCE = 1e-4
"""Largest difference between the wanted and the actual output, relative to the largest output."""
_PROBES = 4
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Rescaling:
    """What a change of the output's scale means for the optimizer.

    Attributes:
        in_last_layer: Whether the last layer was changed; otherwise the output is corrected.
        factors: Factor of the gradient of each parameter of the last layer, which is also that of
            its values; it broadcasts to the parameter.
        loss_factor: Factor of the loss, and of the gradient of all other parameters. It is exact if
            all channels are scaled alike, otherwise an estimate.
        recorded_factor: Factor of the losses that samples had before, with unchanged predictions: the mean
            of (old width / new width)². It is exact if all channels are scaled alike.
    """

    in_last_layer: bool
    factors: dict[nn.Parameter, torch.Tensor]
    loss_factor: float
    recorded_factor: float


@dataclass
class _Change:
    """The parameters of a layer with the factor of each, and their values before."""

    factors: dict[nn.Parameter, torch.Tensor]
    before: list[tuple[nn.Parameter, torch.Tensor]]

    @torch.no_grad()
    def undo(self) -> None:
        for parameter, values in self.before:
            parameter.copy_(values)


def rescale_outputs(
    networks: Sequence[nn.Module], n_inputs: int, gain: torch.Tensor, shift: torch.Tensor
) -> dict[nn.Parameter, torch.Tensor] | None:
    """Changes each network so that its output y becomes gain y + shift.

    Only the weights and the bias of the last layer change. Networks for which this is impossible,
    for example because their last layer is followed by a nonlinear function, are left as they are:
    the output of the changed network is compared with the wanted one.

    Args:
        networks: Networks that map `(n, n_inputs)` to outputs with k values for each row.
        n_inputs: Number of inputs.
        gain: Factor of each of the k output values, `(k,)`, positive.
        shift: Term that is added to each, `(k,)`.

    Returns:
        Each changed parameter with its factor, of a shape that broadcasts to the parameter's; None
        if the networks are unchanged.
    """
    changes: list[_Change] = []
    for network in networks:
        change = _rescale(network, n_inputs, gain, shift)
        if change is None:
            for one in changes:
                one.undo()
            return None
        changes.append(change)
    return {parameter: factor for one in changes for parameter, factor in one.factors.items()}


@torch.no_grad()
def _rescale(
    network: nn.Module, n_inputs: int, gain: torch.Tensor, shift: torch.Tensor
) -> _Change | None:
    if next(network.parameters(), None) is None:
        return None
    layer = last_executed_layer(network, n_inputs)
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    if not isinstance(weight, nn.Parameter) or not isinstance(bias, nn.Parameter):
        return None
    found = _per_channel(len(bias), gain, shift)
    if found is None or not bias.is_floating_point():
        return None
    factor, term = (one.to(bias.dtype) for one in found)
    channels = factor.shape[0] > 1
    axis = 1 if isinstance(layer, _TRANSPOSED) else 0
    if channels and not isinstance(layer, (nn.Linear, *_CONVOLUTIONS, *_TRANSPOSED)):
        return None
    rows = factor.reshape([-1 if place == axis else 1 for place in range(weight.dim())])
    change = _Change({weight: rows, bias: factor}, [(one, one.clone()) for one in (weight, bias)])
    before = _outputs(network, n_inputs)
    weight.mul_(rows)
    bias.mul_(factor).add_(term)
    wanted = before * gain + shift
    error = (_outputs(network, n_inputs) - wanted).abs().max()
    if not error <= _TOLERANCE * ((before * gain).abs().max() + shift.abs().max()):
        change.undo()
        return None
    return change


def _per_channel(
    count: int, gain: torch.Tensor, shift: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Returns gain and shift of a layer's output channels `(count,)`, or `(1,)` if all are equal.

    The output values of a channel follow each other, or every `count`-th belongs to it.
    """
    both = torch.stack([gain, shift])
    if (both == both[:, :1]).all():
        return gain[:1], shift[:1]
    if both.shape[1] % count:
        return None
    for layout in (both.reshape(2, count, -1), both.reshape(2, -1, count).swapaxes(1, 2)):
        if (layout == layout[..., :1]).all():
            return layout[0, :, 0], layout[1, :, 0]
    return None


def _outputs(network: nn.Module, n_inputs: int) -> torch.Tensor:
    """Returns the network's outputs `(n, k)`, float64, at a few fixed inputs."""
    weight = next(network.parameters())
    inputs = torch.rand(_PROBES, n_inputs, generator=torch.Generator().manual_seed(0)) * 2 - 1
    training = network.training
    network.eval()
    try:
        # A compiled network would be compiled again for this batch size.
        with torch.compiler.set_stance("force_eager"):
            found: torch.Tensor = network(inputs.to(weight.device, input_dtype(network)))
    finally:
        network.train(training)
    return found.reshape(_PROBES, -1).double()

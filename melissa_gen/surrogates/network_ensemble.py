"""Ensembles of networks. The disagreement of the members estimates the uncertainty."""

import inspect
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn

__all__ = ["Heads", "Kind", "Members", "ensemble_of", "heads_argument", "networks_of"]

Kind = Literal["heads", "members"]
_HEADS = "ensemble_heads"
"""Argument of the networks for which heads are an axis of their own in `output_shape`, the first one."""


class Heads(nn.Module):
    """Ensemble whose members share all layers of one network except the last.

    The additional cost is proportional to the size of the last layer: small after a deep trunk, and
    nearly that of separate networks if the last layer holds most of the weights.

    Reference: Osband et al., "Deep exploration via bootstrapped DQN", 2016 (shared trunk, several
    heads).

    Args:
        network: Maps `(n, n_inputs)` to `(n, M, *output_shape)`, or to the same values with the first two of these
            axes after the batch axis as one.
        count: Number of members M.
        output_shape: Shape of one member's output without the batch axis.
    """

    def __init__(self, network: nn.Module, count: int, output_shape: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.shape = (count, *output_shape)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps inputs (n, n_inputs) to outputs (n, M, *output_shape)."""
        outputs: torch.Tensor = self.network(inputs)
        return outputs.reshape(inputs.shape[0], *self.shape)


class Members(nn.Module):
    """Ensemble of separate networks with independent initial weights, at M times the cost of one.

    Reference: Lakshminarayanan et al., "Simple and scalable predictive uncertainty estimation using
    deep ensembles", 2017.

    Args:
        networks: Each maps (n, n_inputs) to (n, *output_shape).
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps inputs (n, n_inputs) to outputs (n, M, *output_shape)."""
        return torch.stack([network(inputs) for network in self.networks], dim=1)


def heads_argument(network: type[nn.Module], ensemble: tuple[Kind, int] | None) -> dict[str, int]:
    """Returns the number of heads as an argument of a network's class, if there are heads and it takes them."""
    if ensemble and ensemble[0] == "heads" and _HEADS in inspect.signature(network).parameters:
        return {_HEADS: ensemble[1]}
    return {}


def ensemble_of(
    kind: Kind,
    count: int,
    output_shape: Sequence[int],
    make: Callable[[tuple[int, ...]], nn.Module],
    own_axis: bool = False,
) -> nn.Module:
    """Creates an ensemble.

    Args:
        kind: `heads` or `members`.
        count: Number of members, at least 2.
        output_shape: Output shape of one member.
        make: Creates a network with a given output shape.
        own_axis: Whether the heads are an axis of their own in that shape; else its first axis is `count` times as
            long.

    Returns:
        A network that maps `(n, n_inputs)` to `(n, count, *output_shape)`.
    """
    shape = tuple(output_shape)
    if kind == "members":
        return Members([make(shape) for _ in range(count)])
    if own_axis or not shape:
        return Heads(make((count, *shape)), count, shape)
    return Heads(make((count * shape[0], *shape[1:])), count, shape)


def networks_of(network: nn.Module) -> list[nn.Module]:
    """Returns the networks of an ensemble, or the network itself if it is not an ensemble."""
    if isinstance(network, Members):
        return list(network.networks)
    return [network.network] if isinstance(network, Heads) else [network]

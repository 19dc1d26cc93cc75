"""Several members in one network: where they differ, the surrogate does not know."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn

__all__ = ["Heads", "Kind", "Members", "ensemble_of", "parts_of"]

Kind = Literal["heads", "members"]


class Heads(nn.Module):
    """One network with the outputs of all members: they share all but its last layer.

    Costs as much as the last layer is of the network: little after a deep trunk, and nearly that of
    separate networks where the last layer holds most weights.

    Reference: Osband et al., "Deep exploration via bootstrapped DQN", 2016, for the heads.

    Args:
        network: (n, n_inputs) to (n, M · output_shape[0], ...), (n, M) for a scalar output.
        count: Members M.
        output_shape: Shape of one member's output without the batch axis.
    """

    def __init__(self, network: nn.Module, count: int, output_shape: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.shape = (count, *output_shape)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps inputs (n, n_inputs) to outputs (n, M, *output_shape)."""
        outputs: torch.Tensor = self.network(inputs)
        return outputs.reshape(len(inputs), *self.shape)


class Members(nn.Module):
    """Separate networks, each with its own first weights: M times the cost.

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


def ensemble_of(
    kind: Kind,
    count: int,
    output_shape: Sequence[int],
    make: Callable[[tuple[int, ...]], nn.Module],
) -> nn.Module:
    """Makes an ensemble.

    Args:
        kind: `heads` or `members`.
        count: Members, at least 2.
        output_shape: Of one member.
        make: Builds a network of the given output shape.
    """
    shape = tuple(output_shape)
    if kind == "members":
        return Members([make(shape) for _ in range(count)])
    return Heads(make((count * shape[0], *shape[1:]) if shape else (count,)), count, shape)


def parts_of(network: nn.Module) -> list[nn.Module]:
    """The networks that an ensemble is made of; of no ensemble, the network itself."""
    if isinstance(network, Members):
        return list(network.networks)
    return [network.network] if isinstance(network, Heads) else [network]

"""How much each sample of a batch pulls at the network: gradients of the last layer, one per sample."""

from typing import Any

import torch
from torch import nn

__all__ = ["LastLayer"]


class LastLayer:
    """Watches the layer of a network that runs last, and measures each sample's pull at it.

    With g_j the gradient of sample j's loss and ḡ that of the batch, both with respect to that
    layer's weights, a sample's influence is ‖g_j‖² + 2 ⟨g_j, ḡ⟩: by how much training on it changes
    the dynamics of training. At its true label, where the paper has to guess one.

    For a linear layer of H inputs and O outputs, g_j is an outer product and is never formed: the
    cost is one more product of (n, H) with (H, O), a sixth of that layer's own forward and backward.
    For any other layer all n gradients are formed, n times the memory of its weights.

    Reference: Wang et al., "Deep active learning by leveraging training dynamics", arXiv 2110.08611.

    Args:
        network: Maps (n, n_inputs) to (n, ...).
        n_inputs: Its inputs.
    """

    def __init__(self, network: nn.Module, n_inputs: int) -> None:
        self._layer = _last_to_run(network, n_inputs)
        self._kept: tuple[torch.Tensor, torch.Tensor] | None = None
        self._watching = True
        self._layer.register_forward_hook(self._keep)

    def influence(self, factors: torch.Tensor) -> torch.Tensor:
        """Influence (n,) of each sample of the batch that has just gone backward.

        Args:
            factors: What each sample's loss was multiplied by in the sum that went backward (n,).
        """
        assert self._kept is not None, "no batch has gone forward"
        inputs, output = self._kept
        assert output.grad is not None, "the batch has not gone backward"
        shape = (-1, *[1] * (output.dim() - 1))
        pull = output.grad.float() / factors.float().reshape(shape)
        if isinstance(self._layer, nn.Linear) and inputs.dim() == 2:
            found = self._of_linear(self._layer, inputs.float(), pull)
        else:
            found = self._of_any(inputs.float(), pull)
        self._kept = None
        return found

    def _keep(
        self, layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> None:
        if self._watching and output.requires_grad:
            output.retain_grad()
            self._kept = (inputs[0].detach(), output)

    @staticmethod
    def _of_linear(layer: nn.Linear, inputs: torch.Tensor, pull: torch.Tensor) -> torch.Tensor:
        assert layer.weight.grad is not None
        squares = pull.square().sum(dim=1)
        own = squares * inputs.square().sum(dim=1)
        shared = ((pull @ layer.weight.grad.float()) * inputs).sum(dim=1)
        if layer.bias is not None:
            assert layer.bias.grad is not None
            own = own + squares
            shared = shared + pull @ layer.bias.grad.float()
        return own + 2.0 * shared

    def _of_any(self, inputs: torch.Tensor, pull: torch.Tensor) -> torch.Tensor:
        layer = self._layer
        weights = {name: weight.detach() for name, weight in layer.named_parameters()}

        def gradient(one: torch.Tensor, slope: torch.Tensor) -> dict[str, torch.Tensor]:
            def run(w: dict[str, torch.Tensor]) -> Any:
                return torch.func.functional_call(layer, w, (one[None],))

            back: Any = torch.func.vjp(run, weights)[1]
            found: dict[str, torch.Tensor] = back(slope[None])[0]
            return found

        self._watching = False
        try:
            each = torch.func.vmap(gradient)(inputs, pull)
        finally:
            self._watching = True
        total = torch.zeros(len(inputs), device=inputs.device)
        for name, weight in layer.named_parameters():
            assert weight.grad is not None
            own = each[name].flatten(1)
            total += own.square().sum(dim=1) + 2.0 * own @ weight.grad.float().flatten()
        return total


def _last_to_run(network: nn.Module, n_inputs: int) -> nn.Module:
    """The module with weights of its own that a forward pass enters last."""
    entered: list[nn.Module] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: entered.append(module))
        for module in network.modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    weight = next(network.parameters())
    training = network.training
    network.eval()
    with torch.no_grad():
        network(torch.zeros(2, n_inputs, dtype=weight.dtype, device=weight.device))
    network.train(training)
    for hook in hooks:
        hook.remove()
    return entered[-1]

"""Influence of each sample of a batch on training, from per-sample gradients of the last layer."""

from typing import Any

import torch
from torch import nn

from melissa_gen.surrogates.network_class import input_dtype

__all__ = ["LastLayer", "last_executed_layer"]


class LastLayer:
    """Computes the influence of each sample on the last layer of a network.

    Let g_j be the gradient of sample j's loss and ḡ the gradient of the batch loss, both with
    respect to the weights of the last layer. The influence of sample j is ‖g_j‖² + 2 ⟨g_j, ḡ⟩, an
    estimate of how much training on the sample changes the training dynamics. The true label is
    used; the paper uses a predicted label.

    For a linear layer with H inputs and O outputs, g_j is an outer product and is not formed. The
    cost is one additional product of `(n, H)` and `(H, O)`, one sixth of the forward and backward
    pass of the layer. For any other layer all n gradients are formed, which needs n times the
    memory of its weights.

    Reference: Wang et al., "Deep active learning by leveraging training dynamics", arXiv 2110.08611.

    Args:
        network: Maps `(n, n_inputs)` to `(n, ...)`.
        n_inputs: Number of inputs of the network.
    """

    def __init__(self, network: nn.Module, n_inputs: int) -> None:
        self._layer = last_executed_layer(network, n_inputs)
        self._recorded: tuple[torch.Tensor, torch.Tensor] | None = None
        self._recording = True
        self._layer.register_forward_hook(self._record)

    def influence(self, factors: torch.Tensor) -> torch.Tensor:
        """Computes the influence of each sample of the last batch, after its backward pass.

        Args:
            factors: Factor of each sample's loss in the sum that was differentiated, `(n,)`.

        Returns:
            Influences `(n,)`.
        """
        assert self._recorded is not None, "no forward pass has been recorded"
        inputs, output = self._recorded
        assert output.grad is not None, "no backward pass has been run"
        shape = (-1, *[1] * (output.dim() - 1))
        output_gradient = output.grad.float() / factors.float().reshape(shape)
        if isinstance(self._layer, nn.Linear) and inputs.dim() == 2:
            found = self._linear_influence(self._layer, inputs.float(), output_gradient)
        else:
            found = self._general_influence(inputs.float(), output_gradient)
        self._recorded = None
        return found

    def _record(
        self, layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> None:
        if self._recording and output.requires_grad:
            output.retain_grad()
            self._recorded = (inputs[0].detach(), output)

    @staticmethod
    def _linear_influence(
        layer: nn.Linear, inputs: torch.Tensor, output_gradient: torch.Tensor
    ) -> torch.Tensor:
        assert layer.weight.grad is not None
        squares = output_gradient.square().sum(dim=1)
        own = squares * inputs.square().sum(dim=1)
        shared = ((output_gradient @ layer.weight.grad.float()) * inputs).sum(dim=1)
        if layer.bias is not None:
            assert layer.bias.grad is not None
            own = own + squares
            shared = shared + output_gradient @ layer.bias.grad.float()
        return own + 2.0 * shared

    def _general_influence(
        self, inputs: torch.Tensor, output_gradient: torch.Tensor
    ) -> torch.Tensor:
        layer = self._layer
        weights = {name: weight.detach() for name, weight in layer.named_parameters()}

        def gradient(one: torch.Tensor, slope: torch.Tensor) -> dict[str, torch.Tensor]:
            def run(w: dict[str, torch.Tensor]) -> Any:
                return torch.func.functional_call(layer, w, (one[None],))

            back: Any = torch.func.vjp(run, weights)[1]
            found: dict[str, torch.Tensor] = back(slope[None])[0]
            return found

        self._recording = False
        try:
            each = torch.func.vmap(gradient)(inputs, output_gradient)
        finally:
            self._recording = True
        total = torch.zeros(len(inputs), device=inputs.device)
        for name, weight in layer.named_parameters():
            assert weight.grad is not None
            own = each[name].flatten(1)
            total += own.square().sum(dim=1) + 2.0 * own @ weight.grad.float().flatten()
        return total


def last_executed_layer(network: nn.Module, n_inputs: int) -> nn.Module:
    """Returns the last module with own weights that a forward pass executes."""
    executed: list[nn.Module] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: executed.append(module))
        for module in network.modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    weight = next(network.parameters())
    training = network.training
    network.eval()
    # A compiled network may have been traced without the hooks.
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        network(torch.zeros(2, n_inputs, dtype=input_dtype(network), device=weight.device))
    network.train(training)
    for hook in hooks:
        hook.remove()
    return executed[-1]

"""The transformer of the method `joint`, with one token per variable. Imports torch."""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["JointNetwork"]

_FREQUENCIES = 4


class JointNetwork(nn.Module):
    """Predicts the clean value of every variable from all variables, each of them noisy or known.

    A token is the sum of embeddings of the value, of the index of the variable, of whether the
    variable is known, and of the noise level. Inputs and outputs are scaled with the noise level for
    variables of unit variance.

    References: Gloeckler et al., arXiv 2404.09636; scaling: Karras et al., arXiv 2206.00364.

    Args:
        tokens: Number of variables.
        width: Embedding width of a token, a multiple of `heads`.
        layers: Number of transformer layers.
        heads: Number of attention heads.
    """

    def __init__(self, tokens: int, width: int = 32, layers: int = 2, heads: int = 2) -> None:
        super().__init__()
        self._value = nn.Linear(1, width)
        self._which = nn.Parameter(torch.randn(tokens, width))
        self._known = nn.Parameter(0.1 * torch.randn(width))
        self._level = nn.Linear(2 * _FREQUENCIES, width)
        self._layers = nn.ModuleList(_Layer(width, heads) for _ in range(layers))
        self._norm = nn.LayerNorm(width)
        self._out = nn.Linear(width, 1)
        nn.init.zeros_(self._out.weight)

    def forward(self, x: Tensor, known: Tensor, sigma: Tensor) -> Tensor:
        """Returns the clean values (n, t).

        Args:
            x: (n, t), the variables, each of them noisy or known.
            known: (n, t), 1 where a variable is known and 0 where it is noisy.
            sigma: (n, 1), standard deviation of the noise.
        """
        scale = 1.0 / (1.0 + sigma**2).sqrt()
        noisy = x * scale
        value = torch.where(known > 0.5, x, noisy)
        phase = torch.log(sigma) * 0.25 * 2.0 ** torch.arange(_FREQUENCIES) * 0.5
        level = self._level(torch.cat([torch.sin(phase), torch.cos(phase)], dim=1))
        token = self._value(value[..., None]) + self._which + level[:, None, :]
        token = token + known[..., None] * self._known
        for layer in self._layers:
            token = layer(token)
        out: Tensor = self._out(self._norm(token))[..., 0]
        return noisy * scale + sigma * scale * out

    def __call__(self, *inputs: Any) -> Tensor:
        """Returns the clean values; the arguments are those of `forward`."""
        out: Tensor = super().__call__(*inputs)
        return out


class _Layer(nn.Module):
    """A transformer layer: attention and a two-layer perceptron, both residual and with pre-normalization."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self._norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self._queries = nn.Linear(width, 3 * width)
        self._mix = nn.Linear(width, width)
        self._inner = nn.Sequential(
            nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width)
        )

    def forward(self, token: Tensor) -> Tensor:
        n, t, width = token.shape
        parts = self._queries(self._norms[0](token)).view(n, t, 3, self._heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(query, key, value)
        token = token + self._mix(seen.transpose(1, 2).reshape(n, t, width))
        out: Tensor = token + self._inner(self._norms[1](token))
        return out

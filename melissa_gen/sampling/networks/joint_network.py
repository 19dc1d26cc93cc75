"""The transformer of `joint`: one token per variable, noisy or known. Imports torch."""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["JointNetwork"]

_FREQUENCIES = 4


class JointNetwork(nn.Module):
    """Predicts every variable's clean value from all of them, each noisy or known.

    A token is the sum of an embedding of its value, of which variable it is, and of whether it is
    known; the noise level is added to all. Scaling of inputs and outputs with the noise follows
    Karras et al., arXiv 2206.00364, for variables of unit variance.

    Args:
        tokens: variables.
        width: of a token.
        layers: transformer layers.
        heads: attention heads.
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
        """The clean values (n, t), from x (n, t), `known` (n, t) of 0 and 1, and σ (n, 1)."""
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
    """Attention and a two-layer perceptron, each behind a norm and added to its input."""

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

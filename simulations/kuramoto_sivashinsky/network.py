"""A network for simulations whose initial state is a sum of sine waves with periodic boundaries."""

import math

import torch
from torch import Tensor, nn

__all__ = ["WaveNetwork"]


class WaveNetwork(nn.Module):
    """Maps the initial state, computed from the parameters of its waves, to the state at a time.

    Layers are Fourier layers (Li et al., arXiv 2010.08895) with pointwise shortcuts. Time and the
    remaining parameters scale and shift their channels. A shifted initial state gives a shifted
    answer, so that the network need not learn that all places of the domain are alike.

    Args:
        n_inputs: number of inputs: parameters and time, each scaled to [-1, 1].
        output_shape: (number of points,).
        first: index of `amplitude_1` in the study; `phase_1`, `amplitude_2`, ... follow it.
        waves: number of waves. Amplitudes have bounds -A and A, phases 0 and 2 pi.
        width: channels.
        modes: wave numbers of the Fourier layers.
        layers: number of Fourier layers.
    """

    def __init__(
        self,
        n_inputs: int,
        output_shape: tuple[int, ...],
        first: int = 0,
        waves: int = 2,
        width: int = 32,
        modes: int = 32,
        layers: int = 4,
    ) -> None:
        super().__init__()
        (points,) = output_shape
        self.points, self.first, self.last = points, first, first + 2 * waves
        x = (torch.arange(points) + 0.5) / points
        numbers = torch.arange(1, waves + 1)[:, None]
        self.register_buffer("angles", 2.0 * math.pi * numbers * x, persistent=False)
        modes = min(modes, points // 2)
        conditions = n_inputs - 2 * waves
        self.lift = nn.Conv1d(1, width, 1)
        self.conditions = nn.Sequential(
            nn.Linear(conditions, 64), nn.GELU(), nn.Linear(64, 2 * width * layers)
        )
        # Real and imaginary parts.
        shape = (layers, 2, width, width, modes)
        self.spectral = nn.Parameter(torch.randn(shape) / width)
        self.local = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(layers))
        self.project = nn.Sequential(nn.Conv1d(width, 64, 1), nn.GELU(), nn.Conv1d(64, 1, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the states `(n, points)` of inputs `(n, n_inputs)`."""
        waves = inputs[:, self.first : self.last]
        amplitudes, phases = waves[:, 0::2, None], math.pi * (1.0 + waves[:, 1::2, None])
        initial = (amplitudes * torch.sin(self.angles + phases)).sum(1, keepdim=True)
        rest = torch.cat([inputs[:, : self.first], inputs[:, self.last :]], 1)
        shape = (len(inputs), len(self.local), 2, -1, 1)
        films = self.conditions(rest).reshape(shape)
        state = self.lift(initial)
        for layer, local in enumerate(self.local):
            scale, shift = films[:, layer, 0], films[:, layer, 1]
            mixed = self._fourier(state, self.spectral[layer]) + local(state)
            state = state + nn.functional.gelu((1.0 + scale) * mixed + shift)
        return self.project(state)[:, 0]

    def _fourier(self, state: Tensor, weights: Tensor) -> Tensor:
        modes = weights.shape[-1]
        spectrum = torch.fft.rfft(state, norm="forward")[..., :modes]
        mixed = torch.einsum("nim,iom->nom", spectrum, torch.complex(weights[0], weights[1]))
        return torch.fft.irfft(mixed, self.points, norm="forward")

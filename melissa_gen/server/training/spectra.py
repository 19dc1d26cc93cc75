"""Energy spectra of fields on regular grids, of predictions and simulations."""

from collections.abc import Sequence
from typing import Literal

import torch

__all__ = ["SPECTRAL_STEPS", "energy_spectrum", "grid_axes", "log_difference"]

SPECTRAL_STEPS = 10
"""Largest number of time steps whose spectra are compared."""
_LEAST_SHARE = 1e-10
"""Share of the energy of a field below which the energy of a wavenumber is rounding error."""
_LEAST_POINTS = 4


def grid_axes(shape: Sequence[int], channels: Literal["first", "last"] | None) -> list[int]:
    """Returns the axes of a field that belong to its grid, counted from the last; empty if it has no spectrum.

    Args:
        shape: Shape of the field.
        channels: Which axis holds channels, if any.
    """
    axes = list(range(-len(shape), 0))
    axes = {"first": axes[1:], "last": axes[:-1]}.get(channels or "", axes)
    fits = 1 <= len(axes) <= 3 and all(shape[axis] >= _LEAST_POINTS for axis in axes)
    return axes if fits else []


def energy_spectrum(values: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
    """Returns the energy of each wavenumber, `(K, wavenumbers)`, float64.

    The energy of the wavenumber k = 1, 2, ... is the sum of the squared Fourier coefficients whose wave vectors, in
    periods over the grid, have a length that rounds to k, over all channels. It ends at half the points of the shortest
    axis. The sum over all wave vectors but 0 would be the variance.

    Args:
        values: Fields `(K, *shape)` on a regular grid, regarded as periodic.
        axes: The axes of the grid, counted from the last.
    """
    shells = _wavenumbers(values.shape[1:], axes, values.device)
    longest = min(values.shape[axis] for axis in axes) // 2
    energy = torch.zeros(len(values), int(shells.max()) + 1, dtype=torch.float64).to(values.device)
    # One step at a time, because the coefficients take several times the memory of the values.
    for one, total in zip(values, energy, strict=True):
        found = torch.fft.fftn(one.double(), dim=tuple(axes), norm="forward").abs().square()
        total.index_add_(0, shells, found.reshape(-1))
    return energy[:, 1 : longest + 1]


def _wavenumbers(shape: Sequence[int], axes: Sequence[int], device: torch.device) -> torch.Tensor:
    """Returns the wavenumber to which the length of each wave vector rounds, for all values of a field `(values,)`."""
    square = torch.zeros((), dtype=torch.float64, device=device)
    for axis in axes:
        count = shape[axis]
        waves = torch.fft.fftfreq(count, 1 / count, dtype=torch.float64, device=device)
        square = square + waves.square().reshape([-1, *[1] * (-axis - 1)])
    return square.sqrt().round().long().expand(shape).reshape(-1)


def log_difference(predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Returns the root mean square difference of the decimal logarithms of two spectra.

    Args:
        predicted: Spectra of a prediction, `(K, wavenumbers)`.
        true: Those of the simulation.
    """
    least = _LEAST_SHARE * true.sum(dim=1, keepdim=True) + torch.finfo(true.dtype).tiny
    return ((predicted + least).log10() - (true + least).log10()).square().mean().sqrt()

"""Waves of a periodic square by name: `cos_2_m1` is cos(2 x - y) on a square of side 2 pi.

The amplitudes of these waves are parameters of the initial state.
"""

import argparse
import math
import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from slabs import SlabTransform

__all__ = ["amplitude", "mode_names", "mode_of", "study_lines", "wave_spectrum"]


def mode_names(count: int) -> list[str]:
    """Returns the names of the coefficients of the `count` longest waves, two for each wave.

    `cos_2_m1` is the factor of cos(2 x - y), `sin_0_1` that of sin(y). The wave vectors k and -k
    describe the same wave; the name is that with kx > 0, or kx = 0 and ky > 0. Waves of equal length
    are ordered by kx, then ky.
    """
    # The half disc of this radius contains more than `count` waves.
    reach = math.isqrt(2 * count) + 2
    waves = [
        (kx, ky)
        for kx in range(reach + 1)
        for ky in range(-reach, reach + 1)
        if 0 < kx * kx + ky * ky <= reach * reach and (kx > 0 or ky > 0)
    ]
    waves.sort(key=lambda k: (k[0] ** 2 + k[1] ** 2, k))
    texts = [f"{kx}_{ky}".replace("-", "m") for kx, ky in waves[:count]]
    return [f"{kind}_{text}" for text in texts for kind in ("cos", "sin")]


def mode_of(name: str) -> tuple[str, int, int] | None:
    """Parses a name like those of `mode_names` to (cos or sin, kx, ky); returns None for others."""
    found = re.fullmatch(r"(cos|sin)_(m?\d+)_(m?\d+)", name)
    if found is None:
        return None
    kx, ky = (int(text.replace("m", "-")) for text in found.groups()[1:])
    return (found[1], kx, ky) if (kx, ky) != (0, 0) else None


def amplitude(text: str) -> tuple[str, float]:
    """Converts the value of an option such as `cos_2_m1=0.5`."""
    name, _, value = text.partition("=")
    if mode_of(name) is None:
        message = f"'{text}' is not of the form cos_KX_KY=X or sin_KX_KY=X (m1 stands for -1)"
        raise argparse.ArgumentTypeError(message)
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        message = f"'{value}' is not a number"
        raise argparse.ArgumentTypeError(message)
    return name, number


def study_lines(waves: int, size: float) -> str:
    """Returns the parameters of a study: uniform wave amplitudes.

    Args:
        waves: number of waves.
        size: root mean square of the resulting field.
    """
    reach = size * math.sqrt(3.0 / waves)
    range_ = f"{{distribution: uniform, low: {-reach:.3g}, high: {reach:.3g}}}"
    return "\n".join(f"  {name}: {range_}" for name in mode_names(waves))


def wave_spectrum(
    transform: SlabTransform, amplitudes: Mapping[str, float]
) -> NDArray[np.complex128]:
    """Returns this rank's coefficients of a field with given wave amplitudes.

    Args:
        transform: transform to the field. Its grid is shifted by half a cell.
        amplitudes: `cos_KX_KY` or `sin_KX_KY` to amplitude; m stands for minus.

    Raises:
        ValueError: a name does not have this form, or its wave is too short for the resolution.
    """
    first, last = transform.columns
    spectrum = np.zeros((2 * transform.cutoff + 1, last - first), np.complex128)
    for name, value in amplitudes.items():
        mode = mode_of(name)
        if mode is None:
            message = (
                f"'{name}' names no wave; cos_2_m1 is the amplitude of cos(2 x - y), "
                "sin_0_1 that of sin(y)"
            )
            raise ValueError(message)
        kind, kx, ky = mode
        if max(abs(kx), abs(ky)) > transform.cutoff:
            message = (
                f"the wave of '{name}' is too short: {transform.points} points along each axis "
                f"carry wave numbers up to {transform.cutoff}"
            )
            raise ValueError(message)
        # Real part of (a or -i a) exp(i k.x), as two conjugate halves.
        half = 0.5 * value * (1.0 if kind == "cos" else -1j)
        for sign, coefficient in ((1, half), (-1, np.conj(half))):
            if first <= sign * ky < last:
                phase = np.exp(sign * 1j * math.pi * (kx + ky) / transform.points)
                spectrum[sign * kx, sign * ky - first] += coefficient * phase
    return spectrum

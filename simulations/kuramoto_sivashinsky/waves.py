"""Initial states of one dimension: sums of sine waves, whose amplitudes and phases are parameters.

`amplitude_2` and `phase_2` belong to the wave sin(4 pi x + phase_2) on a domain of length 1.
"""

import argparse
import math
import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["DEFAULT", "is_wave", "sine_waves", "wave_parameter"]

Field = NDArray[np.float64]

DEFAULT = {"amplitude_1": 0.5, "phase_1": 0.0, "amplitude_2": 0.5, "phase_2": 1.0}
"""The initial state if neither the study nor the command line has one."""


def is_wave(name: str) -> bool:
    """Returns whether a parameter is the amplitude or the phase of a wave."""
    return re.fullmatch(r"(amplitude|phase)_[1-9]\d*", name) is not None


def wave_parameter(text: str) -> tuple[str, float]:
    """Converts the value of an option such as `amplitude_1=0.5` or `phase_2=3`."""
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not is_wave(name) or not math.isfinite(number):
        message = f"'{text}' is not of the form amplitude_K=X or phase_K=X, with K = 1, 2, ..."
        raise argparse.ArgumentTypeError(message)
    return name, number


def sine_waves(x: Field, parameters: Mapping[str, float]) -> Field:
    """Returns the sum of amplitude_K sin(2 pi K x + phase_K).

    Args:
        x: positions in units of the domain's length, `(n,)`.
        parameters: amplitudes and phases. A phase that is missing is 0.

    Raises:
        ValueError: a phase has no amplitude.
    """
    amplitudes = {name.partition("_")[2]: v for name, v in parameters.items() if name[0] == "a"}
    phases = {name.partition("_")[2]: v for name, v in parameters.items() if name[0] == "p"}
    if alone := [number for number in phases if number not in amplitudes]:
        message = f"there is a phase_{alone[0]}, but no amplitude_{alone[0]}"
        raise ValueError(message)
    field = np.zeros_like(x)
    for number, amplitude in sorted(amplitudes.items()):
        field += amplitude * np.sin(2.0 * math.pi * int(number) * x + phases.get(number, 0.0))
    return field

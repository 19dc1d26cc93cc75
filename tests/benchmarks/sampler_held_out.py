"""Held-out problems: never used to develop a sampler, and run once, to report.

Each is hard in another way than the development problems: by a category alone, at one integer, beyond a step, on a
narrow ridge between two parameters, on a plateau, by a heavy-tailed amplitude, and along two directions among fifty.
A change of a sampler after a look at these results needs new problems.

Every field has 64 points in [0, 1] and 10 times in [0, 1].
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sampler_problems import Array, Fields, Problem

__all__ = ["HELD_OUT"]

_POINTS, _TIMES = 64, 10
_X = np.linspace(0.0, 1.0, _POINTS)
_T = np.linspace(0.0, 1.0, _TIMES)[:, None]


def _columns(points: Array) -> list[NDArray[np.float64]]:
    """The parameters, each of the shape (n, 1, 1)."""
    return [column[:, None, None] for column in points.T]


def _uniform(low: float = 0.0, high: float = 1.0) -> dict[str, Any]:
    return {"distribution": "uniform", "low": low, "high": high}


def material(points: Array) -> Fields:
    """A wave in one of six materials; one of them is dispersive, so that its pulse breaks up into fine ripples."""
    kind, place, width, speed = _columns(points)
    moved = _X - 0.2 - 0.4 * place - (0.1 + 0.1 * kind + 0.2 * speed) * _T
    pulse = np.exp(-0.5 * (moved / (0.08 + 0.08 * width)) ** 2)
    ripples = np.cos(2 * np.pi * (6.0 + 10.0 * width) * moved + 12.0 * speed * _T)
    return np.where(kind == 4, pulse * (1.0 + 1.5 * ripples), pulse).astype(np.float32)


def resonator(points: Array) -> Fields:
    """A standing wave of an integer mode number from 1 to 12; the seventh mode is driven at its resonance."""
    mode, damping, drive, phase = _columns(points)
    detuned = (mode - 7.0) / 0.35
    gain = 1.0 / np.sqrt(1.0 + detuned**2)
    slow = np.sin(np.pi * _X) * np.cos(2.0 * drive * _T + phase)
    shape = np.sin(7.0 * np.pi * _X + 2.0 * phase)
    ring = shape * np.sin((8.0 + 14.0 * drive) * _T) * np.exp(-damping * _T)
    return (slow + 0.02 * mode + 2.0 * gain * ring).astype(np.float32)


def valve(points: Array) -> Fields:
    """A tank whose valve opens above a pressure of 0.85: then a sharp front with a jump enters."""
    pressure, opening, speed, level = _columns(points)
    calm = level * (1.0 - 0.5 * _X * _T) + 0.3 * pressure * np.cos(np.pi * _X)
    front = 0.1 + (0.4 + 0.5 * speed) * _T * (0.5 + opening)
    inside = 1.0 / (1.0 + np.exp(np.clip((_X - front) / 0.012, -60.0, 60.0)))
    wake = 1.0 + 0.6 * np.sin(2 * np.pi * (3.0 + 4.0 * opening) * (_X - front))
    return np.where(pressure > 0.85, calm + inside * wake, calm).astype(np.float32)


def coupled(points: Array) -> Fields:
    """Two oscillators that exchange energy only where their frequencies agree, on a narrow ridge."""
    first, second, coupling, phase, offset = _columns(points)
    detuned = (first - second) / 0.04
    transfer = 1.0 / (1.0 + detuned**2)
    base = np.cos(2.0 * (1.0 + first) * _T + phase) * np.sin(np.pi * _X) + 0.4 * offset * _X
    beat = np.sin((4.0 + 10.0 * coupling) * _T + phase)
    fine = np.sin(2 * np.pi * (3.0 + 3.0 * first) * _X + 3.0 * offset)
    return (base + 1.6 * transfer * beat * fine).astype(np.float32)


def saturated(points: Array) -> Fields:
    """A response that is saturated but for a box of two parameters, a plateau, inside of which it oscillates."""
    first, second, third, fourth = _columns(points)
    inside = (np.abs(first - 0.45) < 0.15) & (np.abs(second - 0.7) < 0.2)
    rest = np.tanh(2.0 * third * _X + _T) + 0.2 * fourth
    wave = np.sin(2 * np.pi * ((4.0 + 4.0 * third) * _X - (1.0 + 2.0 * fourth) * _T))
    return np.where(inside, rest + 1.2 * wave, rest).astype(np.float32)


def bursts(points: Array) -> Fields:
    """A localized burst whose amplitude is log-normal over the prior: few simulations have most of the energy."""
    log_amplitude, place, width, speed = _columns(points)
    moved = _X - 0.25 - 0.3 * place - 0.3 * speed * _T
    envelope = np.exp(-0.5 * (moved / (0.06 + 0.1 * width)) ** 2)
    carrier = np.cos(2 * np.pi * (2.0 + 3.0 * width) * moved)
    quiet = 0.3 * np.sin(np.pi * _X + 2.0 * speed * _T)
    return (quiet + 0.25 * np.exp(1.2 * log_amplitude) * envelope * carrier).astype(np.float32)


def fifty(points: Array) -> Fields:
    """Fifty parameters; the field is steep along two directions that are not those of single parameters."""
    d = points.shape[1]
    k = np.arange(d)
    one = np.where(k % 2 == 0, 1.0, -1.0) / np.sqrt(d)
    two = np.where(k % 4 < 2, 1.0, -1.0) / np.sqrt(d)
    centered = (points - 0.5) * np.sqrt(12.0)
    along, across = (centered @ one)[:, None, None], (centered @ two)[:, None, None]
    waves = np.cos(np.pi * np.outer(1 + k[:8], _X)) * (0.4 / (1 + k[:8]))[:, None]
    smooth = (centered[:, :8] @ waves)[:, None, :] * np.cos(_T)
    hard = 1.0 / (1.0 + np.exp(-8.0 * (along - 1.2)))
    wave = np.sin(2 * np.pi * (4.0 * _X - _T) + 2.0 * across)
    return (smooth + 1.5 * hard * wave).astype(np.float32)


def _problem(
    name: str, solve: Callable[[Array], Fields], parameters: dict[str, dict[str, Any]]
) -> Problem:
    return Problem(name, parameters, solve, _TIMES, _POINTS, simulations=120)


_UNIT = _uniform()
HELD_OUT = {
    problem.name: problem
    for problem in (
        _problem(
            "material",
            material,
            {
                "kind": {"distribution": "categorical", "values": [0, 1, 2, 3, 4, 5]},
                "place": _UNIT,
                "width": _UNIT,
                "speed": _UNIT,
            },
        ),
        _problem(
            "resonator",
            resonator,
            {
                "mode": {"distribution": "integer", "low": 1, "high": 12},
                "damping": _uniform(0.0, 2.0),
                "drive": _UNIT,
                "phase": _UNIT,
            },
        ),
        _problem("valve", valve, dict.fromkeys(("pressure", "opening", "speed", "level"), _UNIT)),
        _problem(
            "coupled",
            coupled,
            dict.fromkeys(("first", "second", "coupling", "phase", "offset"), _UNIT),
        ),
        _problem(
            "saturated", saturated, dict.fromkeys(("first", "second", "third", "fourth"), _UNIT)
        ),
        _problem(
            "bursts",
            bursts,
            {
                "log_amplitude": {"distribution": "normal", "mean": 0.0, "std": 1.0},
                "place": _UNIT,
                "width": _UNIT,
                "speed": _UNIT,
            },
        ),
        replace(
            _problem("fifty", fifty, {f"p{k}": _UNIT for k in range(1, 51)}),
            simulations=240,
            per_round=8,
        ),
    )
}

"""The problems that samplers are compared on: a prior, a solver for many points at once, and a budget.

Networks see the point in the unit cube and the time, both scaled to [-1, 1], and give the whole field at that time.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from melissa_gen.sampling.prior.joint_prior import Prior

ROOT = Path(__file__).resolve().parents[2]

Array = NDArray[np.float64]
Fields = NDArray[np.float32]


@dataclass(frozen=True)
class Problem:
    """One problem with its budget.

    Args:
        name: of the problem.
        parameters: the study's `parameters`.
        solve: points (n, d) to fields (n, times, size).
        times: time steps of a simulation.
        size: values of a field.
        simulations: the budget.
        per_round: simulations between two generations of the sampler.
        steps: Adam steps after each round.
        hidden: widths of the network.
        batch: samples of a batch.
    """

    name: str
    parameters: dict[str, dict[str, Any]]
    solve: Callable[[Array], Fields]
    times: int
    size: int
    simulations: int
    per_round: int = 4
    steps: int = 400
    hidden: tuple[int, ...] = (128, 128, 128)
    batch: int = 32

    @property
    def prior(self) -> Prior:
        return Prior.from_mapping(self.parameters)

    @property
    def rounds(self) -> int:
        return self.simulations // self.per_round


# Burgers, u_t + u u_x = ν u_xx on a periodic interval of length 1 --------------------------------------------------

_BURGERS_TIMES = 20


@dataclass(frozen=True)
class Resolution:
    """Resolution of the Burgers solver.

    Args:
        cells: grid points. The steepest front, of width 4 ν / Δu = 0.008 at the lowest viscosity, spans four of 256.
        step: time step. |u| dt π / dx = 2 by default, below the stability limit 2.8 of RK4 on the imaginary axis.
        steps_between: time steps between two samples.
    """

    cells: int = 256
    step: float = 0.00125
    steps_between: int = 20


def burgers(points: Array, resolution: Resolution = Resolution()) -> Fields:
    """Pseudo-spectral, 2/3 rule, diffusion by an integrating factor, RK4; every fourth grid point.

    u(x, 0) = a₁ sin 2πx + a₂ sin(4πx + φ); 20 times up to 0.5: fronts form from t = 0.1 on.
    """
    return np.concatenate(
        [_burgers(part, resolution) for part in np.array_split(points, len(points) // 256 + 1)]
    )


def _burgers(points: Array, resolution: Resolution) -> Fields:
    cells, step = resolution.cells, resolution.step
    viscosity, first, second, phase = (column[:, None] for column in points.T)
    x = np.arange(cells) / cells
    u = first * np.sin(2 * np.pi * x) + second * np.sin(4 * np.pi * x + phase)
    wave = 2 * np.pi * np.arange(cells // 2 + 1)
    slope = -0.5j * wave * (np.arange(len(wave)) <= cells // 3)
    half = np.exp(-viscosity * wave**2 * step / 2)
    whole = half**2

    def rate(hat: NDArray[np.complex128]) -> NDArray[np.complex128]:
        field = scipy.fft.irfft(hat, cells)
        return slope * scipy.fft.rfft(field * field)

    hat = scipy.fft.rfft(u)
    fields = np.empty((len(points), _BURGERS_TIMES, cells // 4), np.float32)
    for time in range(_BURGERS_TIMES):
        for _ in range(resolution.steps_between):
            k1 = rate(hat)
            moved = half * hat
            k2 = rate(moved + (step / 2) * half * k1)
            k3 = rate(moved + (step / 2) * k2)
            k4 = rate(half * (moved + step * k3))
            hat = whole * hat + (step / 6) * (whole * k1 + 2 * half * (k2 + k3) + k4)
        fields[:, time] = scipy.fft.irfft(hat, cells)[:, ::4]
    return fields


# Heat, the solver and the prior of simulations/heat ----------------------------------------------------------------

_MESH, _HEAT_TIMES = 32, 20


@cache
def _heat_basis() -> Fields:
    """Response to one kelvin of each of the five temperatures, `(5, times, mesh²)`; the equation is linear in them."""
    sys.path.insert(0, str(ROOT / "simulations" / "heat"))
    from mpi4py import MPI
    from solver import HeatSolver, Walls

    solver = HeatSolver(MPI.COMM_SELF, mesh=_MESH, time_step=0.01)
    basis = np.empty((5, _HEAT_TIMES, _MESH * _MESH), np.float32)
    for k, row in enumerate(np.eye(5)):
        for time, field in enumerate(solver.steps(row[0], Walls(*row[1:]), _HEAT_TIMES)):
            basis[k, time] = field.ravel()
    solver.close()
    return basis


def heat(points: Array) -> Fields:
    """Implicit Euler, 20 steps of 0.01 s on a 32 x 32 mesh, by superposition."""
    fields: Fields = np.einsum("nk,kts->nts", points.astype(np.float32), _heat_basis())
    return fields


# Fronts in many dimensions -----------------------------------------------------------------------------------------

_FRONT_POINTS, _FRONT_TIMES = 64, 10


def front(points: Array) -> Fields:
    """A front that is steep in one corner of three parameters, on a smooth background of all parameters.

    u(x, t) = tanh(s (x - c - v t)) + Σ_k b_k λ_k cos(kπx). The steepness s rises from 4 to 60 where λ₁, λ₂ and λ₃ are
    all large (about a tenth of the cube); the place c and the speed v are weighted sums of the λ, the later the less.
    """
    n, d = points.shape
    x = np.linspace(0.0, 1.0, _FRONT_POINTS)
    t = np.linspace(0.0, 1.0, _FRONT_TIMES)[:, None]
    k = np.arange(1, d + 1)
    weight = 1.0 / k
    weight /= np.sqrt((weight**2).sum())
    signs = np.where(k % 2 == 0, -1.0, 1.0)
    centered = points - 0.5
    place = 0.35 + 0.5 * centered @ (weight * signs)
    speed = 0.25 + 0.4 * centered @ weight[::-1]
    corner = points[:, :3].mean(axis=1)
    steepness = 4.0 + 56.0 / (1.0 + np.exp(-25.0 * (corner - 0.72)))
    waves = np.cos(np.pi * np.outer(k, x)) * (0.6 / k)[:, None]
    background = centered @ waves
    where = x - place[:, None, None] - speed[:, None, None] * t
    fields: Fields = (np.tanh(steepness[:, None, None] * where) + background[:, None, :]).astype(
        np.float32
    )
    return fields.reshape(n, _FRONT_TIMES, _FRONT_POINTS)


def _uniform(low: float, high: float) -> dict[str, Any]:
    return {"distribution": "uniform", "low": low, "high": high}


_BURGERS = Problem(
    name="burgers",
    parameters={
        "viscosity": {"distribution": "log_uniform", "low": 0.004, "high": 0.4},
        "first_amplitude": _uniform(0.0, 1.0),
        "second_amplitude": _uniform(0.0, 1.0),
        "phase": _uniform(0.0, 2 * np.pi),
    },
    solve=burgers,
    times=_BURGERS_TIMES,
    size=Resolution.cells // 4,
    simulations=120,
)
_HEAT = Problem(
    name="heat",
    parameters={
        f"{name}_temperature": _uniform(100.0, 500.0)
        for name in ("initial", "left", "right", "bottom", "top")
    },
    solve=heat,
    times=_HEAT_TIMES,
    size=_MESH * _MESH,
    simulations=100,
    hidden=(256, 256),
    steps=200,
)


def _front(d: int) -> Problem:
    return Problem(
        name=f"front{d}",
        parameters={f"p{k}": _uniform(0.0, 1.0) for k in range(1, d + 1)},
        solve=front,
        times=_FRONT_TIMES,
        size=_FRONT_POINTS,
        simulations=240,
        per_round=8,
    )


PROBLEMS = {
    problem.name: problem
    for problem in (
        _BURGERS,
        replace(_BURGERS, name="burgers400", simulations=400),
        _HEAT,
        _front(20),
        _front(100),
        replace(_front(4), name="quick", simulations=16, per_round=4, steps=20),
    )
}

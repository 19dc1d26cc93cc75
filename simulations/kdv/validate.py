"""Validates the solver with solitons and conserved quantities. Exits with 1 if a check fails."""

import math
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from solver import KdvSolver, Medium
from waves import sine_waves

__all__ = [
    "conservation",
    "observed_order",
    "soliton",
    "soliton_error",
    "time_error",
    "two_soliton_error",
    "two_solitons",
]

Field = NDArray[np.float64]

MEDIUM = Medium(hyperviscosity=0.0)
WAVES = {"amplitude_1": 0.8, "phase_1": 0.4, "amplitude_2": -0.5, "phase_2": 2.0}


def soliton(x: Field, time: float, amplitude: float, start: float) -> Field:
    """Returns the soliton that is at `start` at time 0: A sech^2(kappa (x - start - c A t/3)).

    kappa^2 = c A/(12 d), with the convection c and the dispersion d of `MEDIUM`.
    """
    kappa = math.sqrt(MEDIUM.convection * amplitude / (12.0 * MEDIUM.dispersion))
    distance = x - start - MEDIUM.convection * amplitude * time / 3.0
    # The domain is periodic, and much longer than the soliton.
    distance -= np.round(distance)
    return amplitude / np.cosh(kappa * distance) ** 2


def two_solitons(
    x: Field, time: float, amplitudes: tuple[float, float], starts: tuple[float, float]
) -> Field:
    """Returns two interacting solitons (Hirota, "Exact solution of the KdV equation ...", 1971).

    u = (12 d/c) d2/dx2 log F with F = 1 + e1 + e2 + ((k1 - k2)/(k1 + k2))^2 e1 e2 and
    ei = exp(ki (x - start) - d ki^3 t); ki = 2 kappa of `soliton`.
    """
    c, d = MEDIUM.convection, MEDIUM.dispersion
    k1, k2 = (math.sqrt(c * amplitude / (3.0 * d)) for amplitude in amplitudes)
    e1, e2 = (
        np.exp(k * (x - start) - d * k**3 * time) for k, start in zip((k1, k2), starts, strict=True)
    )
    both = ((k1 - k2) / (k1 + k2)) ** 2 * e1 * e2
    f = 1.0 + e1 + e2 + both
    slope = k1 * e1 + k2 * e2 + (k1 + k2) * both
    curvature = k1**2 * e1 + k2**2 * e2 + (k1 + k2) ** 2 * both
    return 12.0 * d / c * (curvature / f - (slope / f) ** 2)


def soliton_error(resolution: int, steps: int, end: float = 60.0) -> float:
    """Returns the maximum error of a soliton of amplitude 1, which travels a quarter of the domain."""
    solver = KdvSolver(resolution)
    *_, last = solver.steps(soliton(solver.x, 0.0, 1.0, 0.3), MEDIUM, end, steps, 1)
    return float(np.abs(last - soliton(solver.x, end, 1.0, 0.3)).max())


def two_soliton_error(resolution: int = 512, steps: int = 4000, end: float = 55.0) -> float:
    """Returns the maximum error after a soliton has overtaken a smaller one."""
    solver = KdvSolver(resolution)
    case = ((2.4, 0.9), (0.2, 0.4))
    *_, last = solver.steps(two_solitons(solver.x, 0.0, *case), MEDIUM, end, steps, 1)
    return float(np.abs(last - two_solitons(solver.x, end, *case)).max())


def time_error(steps: int) -> float:
    """Returns the maximum difference from a solution with 3000 time steps, at time 20.

    The medium is the published one, with hyperviscosity.
    """
    solver = KdvSolver(128)
    start = sine_waves(solver.x, WAVES)
    ends = [list(solver.steps(start, Medium(), 20.0, n, 1))[-1] for n in (steps, 3000)]
    return float(np.abs(ends[0] - ends[1]).max())


def conservation(steps: int, end: float = 20.0) -> tuple[float, ...]:
    """Returns the relative changes of mass, momentum and energy."""
    solver = KdvSolver(256)
    first, last = solver.steps(sine_waves(solver.x, WAVES) + 0.5, MEDIUM, end, steps, 1)
    before, after = (solver.invariants(field, MEDIUM) for field in (first, last))
    return tuple(abs(b / a - 1.0) for a, b in zip(before, after, strict=True))


def observed_order(errors: Sequence[float]) -> float:
    """Returns the order of convergence from the last two errors, whose step sizes differ by 2."""
    return math.log2(errors[-2] / errors[-1])


def main() -> int:
    """Runs the validation, prints the table, and returns the exit status."""
    lines = [f"{'check':<34}{'found':>42}  must be"]
    passed = []
    rows = {
        "soliton, steps": ((300, 600, 1200), lambda n: soliton_error(256, n)),
        "waves, steps": ((250, 500, 1000), time_error),
    }
    sizes = (500, 1000, 2000)
    changes = [conservation(n) for n in sizes]
    rows["change of momentum, steps"] = sizes, lambda n: changes[sizes.index(n)][1]
    rows["change of energy, steps"] = sizes, lambda n: changes[sizes.index(n)][2]
    for name, (counts, error) in rows.items():
        errors = [error(count) for count in counts]
        observed = observed_order(errors)
        # The invariants may converge faster than the field.
        passed.append(observed > 3.7 and (observed < 4.3 or "change" in name))
        values = " ".join(f"{value:.2e}" for value in errors)
        across = f"{name} {counts[0]}..{counts[-1]}"
        lines.append(
            f"{across:<40}{values:>28}{observed:8.2f}  {'>= 4' if 'change' in name else 4}"
        )
    for name, found, most in (
        ("soliton, 256 points, 4000 steps", soliton_error(256, 4000), 1e-6),
        ("two solitons, after overtaking", two_soliton_error(), 1e-6),
        ("change of the mass", changes[0][0], 1e-12),
    ):
        passed.append(found <= most)
        lines.append(f"{name:<34}{found:>42.1e}  <= {most:g}")
    lines.append("passed" if all(passed) else "FAILED")
    print("\n".join(lines))
    return int(not all(passed))


if __name__ == "__main__":
    sys.exit(main())

"""Validates both forms of the equation. Exits with 1 if a check fails."""

import math
import sys
from collections.abc import Sequence

import numpy as np
from scipy.integrate import simpson
from solver import PUBLISHED, KuramotoSivashinsky
from waves import sine_waves

__all__ = [
    "balance",
    "budget_error",
    "form_difference",
    "growth_error",
    "mean_change",
    "observed_order",
    "time_error",
]

WAVES = {"amplitude_1": 0.5, "phase_1": 0.4, "amplitude_2": -0.3, "phase_2": 2.0}


def growth_error(form: str, wave: int) -> float:
    """Returns the relative error of the growth of a small wave over 10 intervals."""
    solver, coefficients = KuramotoSivashinsky(form, 128), PUBLISHED[form]
    start = sine_waves(solver.x, {f"amplitude_{wave}": 1e-8})
    first, *_, last = solver.steps(start, coefficients, 1.0, 4, 10)
    k = 2.0 * math.pi * wave
    rate = coefficients.antidiffusion * k**2 - coefficients.hyperdiffusion * k**4
    return float(np.abs(last / np.exp(10.0 * rate) - first).max() / 1e-8)


def time_error(form: str, steps: int, end: float = 20.0) -> float:
    """Returns the maximum difference from a solution with 3200 time steps."""
    solver = KuramotoSivashinsky(form, 96)
    start = sine_waves(solver.x, WAVES)
    runs = (solver.steps(start, PUBLISHED[form], end, n, 1) for n in (steps, 3200))
    ends = [list(run)[-1] for run in runs]
    return float(np.abs(ends[0] - ends[1]).max())


def form_difference(steps: int = 20) -> float:
    """Returns the maximum difference between the slope of u and the conservative solution.

    If u solves the integral form, its slope solves the conservative form with the same coefficients.
    """
    integral, conservative = (KuramotoSivashinsky(form, 128) for form in PUBLISHED)
    coefficients = PUBLISHED["integral"]
    start = sine_waves(integral.x, WAVES)
    slopes = [integral.derivative(u) for u in integral.steps(start, coefficients, 1.0, steps, 20)]
    same = conservative.steps(slopes[0], coefficients, 1.0, steps, 20)
    scale = np.abs(slopes[-1]).max()
    return float(np.abs(list(same)[-1] - slopes[-1]).max() / scale)


def budget_error(steps: int, end: float = 20.0) -> float:
    """Returns the relative error of the energy's budget of the conservative form.

    d<u^2/2>/dt = antidiffusion <(du/dx)^2> - hyperdiffusion <(d2u/dx2)^2>: the nonlinear term keeps
    the energy. The right-hand side is integrated over all time steps by Simpson's rule, of order 4.
    """
    solver, coefficients = KuramotoSivashinsky("conservative", 96), PUBLISHED["conservative"]
    start = sine_waves(solver.x, WAVES)
    fields = list(solver.steps(start, coefficients, end / steps, 1, steps))
    rates = []
    for u in fields:
        fed, damped = ((solver.derivative(u, order) ** 2).mean() for order in (1, 2))
        rates.append(coefficients.antidiffusion * fed - coefficients.hyperdiffusion * damped)
    first, last = ((u**2).mean() / 2.0 for u in (fields[0], fields[-1]))
    return float(abs(last - first - simpson(rates, dx=end / steps)) / last)


def balance(intervals: int = 1000) -> tuple[float, float]:
    """Returns two statistics of the chaotic state of the conservative form, after 200 intervals.

    The first is the mean energy gained from long waves, divided by that lost in short waves, which
    is 1 in a statistically steady state. The second is the root mean square of u in units in which
    all coefficients are 1.
    """
    solver, coefficients = KuramotoSivashinsky("conservative", 96), PUBLISHED["conservative"]
    trajectory = solver.steps(sine_waves(solver.x, WAVES), coefficients, 1.0, 5, 200 + intervals)
    fed = damped = energy = 0.0
    for step, u in enumerate(trajectory):
        if step >= 200:
            fed += coefficients.antidiffusion * (solver.derivative(u) ** 2).mean()
            damped += coefficients.hyperdiffusion * (solver.derivative(u, 2) ** 2).mean()
            energy += (u**2).mean() / (intervals + 1)
    a, b = coefficients.antidiffusion, coefficients.hyperdiffusion
    unit = math.sqrt(a**3 / b) / coefficients.nonlinearity
    return fed / damped, math.sqrt(energy) / unit


def mean_change(form: str) -> float:
    """Returns the change of the mean of u over 20 intervals."""
    solver = KuramotoSivashinsky(form, 96)
    start = sine_waves(solver.x, WAVES) + 0.2
    means = [u.mean() for u in solver.steps(start, PUBLISHED[form], 1.0, 5, 20)]
    return float(np.ptp(means))


def observed_order(errors: Sequence[float]) -> float:
    """Returns the order of convergence from the last two errors, whose step sizes differ by 2."""
    return math.log2(errors[-2] / errors[-1])


def main() -> int:
    """Runs the validation, prints the table, and returns the exit status."""
    lines = [f"{'check':<40}{'found':>40}  must be"]
    passed = []
    # The integral form grows slowly at first, so that its error soon is a rounding error.
    rows = {
        "integral, steps": ((25, 50, 100), lambda n: time_error("integral", n)),
        "conservative, steps": ((100, 200, 400), lambda n: time_error("conservative", n)),
        "energy budget, steps": ((100, 200, 400), budget_error),
    }
    for name, (counts, error) in rows.items():
        errors = [error(count) for count in counts]
        observed = observed_order(errors)
        passed.append(abs(observed - 4) < 0.4)
        values = " ".join(f"{value:.2e}" for value in errors)
        across = f"{name} {counts[0]}..{counts[-1]}"
        lines.append(f"{across:<40}{values:>32}{observed:8.2f}  4")
    checks = [
        (f"{form}, growth of wave {wave}", growth_error(form, wave), 1e-6)
        for form in PUBLISHED
        for wave in (1, 12, 20)
    ]
    checks += [(f"{form}, change of the mean", mean_change(form), 1e-12) for form in PUBLISHED]
    checks.append(("slope of integral minus conservative", form_difference(), 1e-10))
    ratio, rms = balance()
    checks.append((f"gain/loss - 1, chaotic; rms of u {rms:.2f}", abs(ratio - 1.0), 0.01))
    for name, found, most in checks:
        passed.append(found <= most)
        lines.append(f"{name:<44}{found:>36.1e}  <= {most:g}")
    lines.append("passed" if all(passed) else "FAILED")
    print("\n".join(lines))
    return int(not all(passed))


if __name__ == "__main__":
    sys.exit(main())

"""Simulations of different run time: what dividing the acquisition by the run time gains in equal solver time.

    python tests/benchmarks/sampler_run_times.py --seeds 5

The problem is that of fronts with four parameters, whose simulations are hard where the first three are large. Run
times are a function of the parameters, from 1 to 16: along the fourth parameter, which does not make them hard
(`beside`), or along the mean of the first three, so that hard simulations are also slow (`with`). Each method gets the
solver time of 80 simulations of the prior, and takes 200 optimizer steps after every 4 simulations. A first run gives
the number of simulations. Ratios are the error of `sobol` divided by that of the method, geometric means over the
seeds; an error is that of one of 1,000 simulations that are drawn from the prior.
"""

# ruff: noqa: E402 (the libraries read their number of threads when they are imported)
import os

for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{_library}_NUM_THREADS"] = "1"

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from measure import Result, command_line, environment, finish
from numpy.typing import NDArray
from sampler_fleet import Fleet, Slot
from sampler_problems import PROBLEMS, Problem

from melissa_gen.sampling import create

Array = NDArray[np.float64]

_SLOWEST = 16.0
_METRICS = ("mean", "std", "p99", "max")
METHODS = {
    "sobol": ("sobol", {}),
    "adaptive": ("adaptive", {}),
    "adaptive, cost measured": ("adaptive", {"cost": "measured"}),
}


def beside(points: Array) -> Array:
    return _SLOWEST ** points[:, 3]


def along(points: Array) -> Array:
    return _SLOWEST ** points[:, :3].mean(axis=1)


COSTS = {"beside": beside, "with": along}


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    args = parser.parse_args()
    torch.set_num_threads(1)
    env = environment()
    seeds, budget, test = (1, 12, 64) if args.quick else (args.seeds, 80, 1000)
    base = replace(PROBLEMS["quick"], name="front4", per_round=4, steps=20 if args.quick else 200)
    result = Result(
        title=f"front4, the solver time of {budget} simulations, {seeds} seeds; sobol's error / the method's",
        columns=["run time", "method", "simulations", "solver time", *_METRICS],
    )
    for name, cost in COSTS.items():
        found = {m: _within(base, m, cost, budget, seeds, test) for m in METHODS}
        for method, (count, spent, errors) in found.items():
            ratios = np.exp(np.mean(np.log(found["sobol"][2] / errors), axis=0)).round(2)
            result.rows.append([name, method, count, round(spent, 2), *ratios.tolist()])
    finish(result, env, args, "sampler_run_times")


def _within(
    base: Problem, method: str, cost: Callable[[Array], Array], budget: int, seeds: int, test: int
) -> tuple[int, float, Array]:
    """Returns how many simulations the budget is, their time relative to it, and the errors (seeds, metrics)."""
    mean = float(cost(base.prior.sample(100_000, np.random.default_rng(0))).mean())
    spent, _ = _run(replace(base, simulations=budget), method, cost, seeds, 16)
    count = base.per_round * round(budget * budget * mean / spent / base.per_round)
    spent, errors = _run(replace(base, simulations=count), method, cost, seeds, test)
    return count, spent / (budget * mean), errors


def _run(
    problem: Problem, method: str, cost: Callable[[Array], Array], seeds: int, test: int
) -> tuple[float, Array]:
    """Returns the solver time of all simulations, mean over the seeds, and the errors (seeds, metrics)."""
    rng = np.random.default_rng(12345)
    points = problem.prior.sample(test, rng)
    fields = problem.solve(points)
    kind, arguments = METHODS[method]
    slots = [
        Slot(create(kind, problem.prior, seed=seed, arguments=arguments), seed, 0.5, run_time=cost)
        for seed in range(seeds)
    ]
    fleet = Fleet(problem, slots, (float(fields.mean()), float(fields.std())))
    fleet.run()
    errors = fleet.errors(points, fields)
    columns = (errors.mean(1), errors.std(1), np.quantile(errors, 0.99, axis=1), errors.max(1))
    spent = float(np.mean([cost(np.array(slot.points)).sum() for slot in slots]))
    return spent, np.stack(columns, axis=1)


if __name__ == "__main__":
    main()

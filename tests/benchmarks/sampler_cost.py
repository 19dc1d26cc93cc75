"""Cost of each sampler: CPU seconds to learn from 100 simulations and to propose 100 points, d = 5.

    python tests/benchmarks/sampler_cost.py

A sampler has learned twice before it is timed: a first fit takes longer, and happens once. Target: 100 points in 0.2 s.
"""

# ruff: noqa: E402 (the libraries read their number of threads when they are imported)
import os
import statistics
import time
from dataclasses import replace

for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{_library}_NUM_THREADS"] = "1"

import numpy as np
import torch
from measure import Result, Target, command_line, environment, finish
from sampler_fleet import Fleet, Slot
from sampler_problems import PROBLEMS

from melissa_gen.sampling import METHODS, Evidence, create

NOT_TIMED = {"table", "external"}
"""They take what the user gives."""


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--methods", help="all, if not given")
    args = parser.parse_args()
    torch.set_num_threads(1)
    env = environment()
    problem = replace(PROBLEMS["burgers"], parameters=PROBLEMS["heat"].parameters)
    problem = replace(problem, solve=PROBLEMS["heat"].solve, size=PROBLEMS["heat"].size, steps=4)
    slot = Slot(create("uniform", problem.prior, 0), 0, 0.0)
    fleet = Fleet(replace(problem, simulations=100), [slot], (300.0, 100.0))
    fleet.run()
    result = Result(
        title="cost of a sampler, d = 5, 100 simulations known, a surrogate of 1,024 values",
        columns=["method", "learn s", "propose 100 s"],
    )
    names = args.methods.split(",") if args.methods else [m for m in METHODS if m not in NOT_TIMED]
    for name in names:
        learn, propose = _timed(name, slot, fleet, 1 if args.quick else 3)
        result.rows.append([name, learn, propose])
        result.targets.append(Target(f"{name}, 100 points", 0.2, propose, at_least=False))
    finish(result, env, args, "sampler_cost")


def _timed(name: str, slot: Slot, fleet: Fleet, repetitions: int) -> tuple[float, float]:
    """Returns the median CPU seconds of an update with new evidence and of a suggestion."""
    sampler = create(name, fleet.prior, seed=1)
    rng = np.random.default_rng(0)
    learn, propose = [], []
    for turn in range(2 + repetitions):
        evidence = [
            Evidence(i, point, float(np.exp(rng.normal())), samples=turn + 1)
            for i, point in enumerate(slot.points)
        ]
        sampler.ingest(evidence)
        began = time.process_time()
        if sampler.uses_surrogate:
            sampler.observe(fleet.probe(0))
        sampler.update()
        learned = time.process_time()
        sampler.suggest(100)
        if turn > 1:
            learn.append(learned - began)
            propose.append(time.process_time() - learned)
    return statistics.median(learn), statistics.median(propose)


if __name__ == "__main__":
    main()

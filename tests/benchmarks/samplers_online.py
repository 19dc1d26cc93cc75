"""The comparison of samplers with real studies by `melissa-gen run`, to confirm the results of `samplers.py`.

Burgers with the budget of `samplers.py`: 120 simulations, proposals of 4, and each sample drawn 160 times on average,
which are 400 steps of 32 samples for every 4 simulations of 20 time steps. Launcher, MPI world, wire, reservoir,
trainer, sampler and snapshots are those of any study; the solver is the one that `samplers.py` calls. What differs: the
learning rate halves every 3,600 batches instead of falling evenly, to an eighth in all instead of a tenth; the output
scale is that of the first samples; proposals are a few simulations ahead of what has been learned, and the last samples
are drawn less often than the others.

Errors and ratios are those of `samplers.py`, on the same 1,000 simulations.
"""

import argparse
import json
import math
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from measure import Result, command_line, environment, finish, run_study
from numpy.typing import NDArray
from sampler_problems import PROBLEMS, Fields
from samplers import METRICS, TEST, figures, ratio_with_interval, solved

Array = NDArray[np.float64]

PROBLEM = PROBLEMS["burgers"]
LOG = "log_viscosity"
"""The network's inputs are scaled linearly, and shall be those of the unit cube."""


def main() -> None:
    parser = command_line(__doc__)
    add = parser.add_argument
    add("--as-client", action="store_true", help=argparse.SUPPRESS)
    add("--methods", default="diffusion_posterior,pool", help="beside uniform")
    add("--seeds", type=int, default=5, metavar="N")
    add("--results", type=Path, default=Path(__file__).parent / "results" / "samplers")
    args = parser.parse_args()
    if args.as_client:
        client()
        return
    methods, seeds = args.methods.split(","), args.seeds
    count, draws, test = (
        PROBLEM.simulations,
        PROBLEM.steps * PROBLEM.batch / PROBLEM.per_round,
        TEST,
    )
    if args.quick:
        methods, seeds, count, test = methods[:1], 1, 16, 64
        args.results = Path(tempfile.mkdtemp())
    env = environment()
    args.problem = PROBLEM.name
    points, fields = solved(args, PROBLEM, "test", test, 12345)
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    summaries: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for seed in range(seeds):
        for method in ("uniform", *methods):
            errors, summary = online(method, seed, count, draws / PROBLEM.times, points, fields)
            found[method].append(figures(errors))
            summaries[method].append(summary)
            print(f"{method} {seed}: {json.dumps(found[method][-1])}", flush=True)
    column = {
        m: {k: np.array([row[k] for row in rows]) for k in METRICS} for m, rows in found.items()
    }
    result = Result(
        f"Burgers through melissa-gen run, {count} simulations; uniform's error / the method's",
        ["method", "seeds", *METRICS, "batches", "wall s"],
    )
    for method, mine in column.items():
        ratios = [ratio_with_interval(column["uniform"][k], mine[k]) for k in METRICS]
        texts = ["{:.2f} [{:.2f}, {:.2f}]".format(*three) for three in ratios]
        batches = float(np.median([s["training"]["batches"] for s in summaries[method]]))
        wall = float(np.median([s["wall_seconds"] for s in summaries[method]]))
        result.rows.append([method, seeds, *texts, batches, wall])
    result.details = {"errors": found, "summaries": summaries}
    finish(result, env, args, "samplers_online")


def online(
    method: str, seed: int, count: int, draws_per_sample: float, points: Array, fields: Fields
) -> tuple[Array, dict[str, Any]]:
    """Runs the study; returns the error of each test simulation (n,), and `summary.json`."""
    from melissa_gen.surrogates import load

    parameters = {
        LOG if name == "viscosity" else name: _uniform(name, settings)
        for name, settings in PROBLEM.parameters.items()
    }
    study = {
        "name": f"burgers-{method}-{seed}",
        "parameters": parameters,
        "simulation": {
            "command": [sys.executable, __file__, "--as-client"],
            "count": count,
            "time_steps": PROBLEM.times,
            "fields": {"u": {"shape": [PROBLEM.size]}},
        },
        "surrogate": {"arguments": {"hidden": list(PROBLEM.hidden), "activation": "silu"}},
        "training": {
            "batch_size": PROBLEM.batch,
            "learning_rate": 1e-3,
            "halve_every": 3600,
            "draws_per_sample": draws_per_sample,
            "max_draws_per_sample": draws_per_sample,
            "validation": {"simulations": 0},
        },
        "reservoir": {
            "capacity": count * PROBLEM.times,
            "watermark": PROBLEM.batch,
        },
        "sampler": {"method": method, "generation_size": PROBLEM.per_round},
        "launcher": {"clients": 1},
        "seed": seed,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_dir = run_study(study, folder)
        summary = json.loads((run_dir / "summary.json").read_text())
        surrogate = load(run_dir / "checkpoints" / "final")
    inputs = points.copy()
    inputs[:, 0] = np.log(inputs[:, 0])
    times = np.linspace(*surrogate.times, PROBLEM.times)
    found = np.empty(len(points))
    for k, (row, true) in enumerate(zip(inputs, fields, strict=True)):
        predicted = surrogate.predict(dict(zip(parameters, row, strict=True)), times)["u"]
        found[k] = np.sqrt(((predicted - true) ** 2).mean()) / fields.std()
    return found, summary


def _uniform(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    low, high = settings["low"], settings["high"]
    if name == "viscosity":
        low, high = math.log(low), math.log(high)
    return {"distribution": "uniform", "low": low, "high": high}


def client() -> None:
    """The solver: all time steps of a simulation at once, sent one by one."""
    from melissa_gen.client import Client

    with Client() as connection:
        connection.field("u", shape=(PROBLEM.size,))
        for simulation in connection:
            first, *others = simulation.parameters.values()
            (steps,) = PROBLEM.solve(np.array([[math.exp(first), *others]]))
            for step in steps:
                simulation.send(u=step)


if __name__ == "__main__":
    main()

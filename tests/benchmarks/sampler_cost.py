"""Cost of each sampler: CPU seconds to learn from 100 simulations and to propose 100 points, d = 5.

    python tests/benchmarks/sampler_cost.py

A sampler has learned twice before it is timed: a first fit takes longer, and happens once. Target: 100 points in 0.2 s.

A second table has the default sampler beside networks of three kinds on a 32 x 32 grid, as a share of the training
between two generations: 10 simulations of 100 time steps, each drawn 25 times in batches of 32, as in the heat study.
Target: at most 2 %.
"""

# ruff: noqa: E402 (the libraries read their number of threads when they are imported)
import copy
import os
import statistics
import time
from dataclasses import replace
from typing import Any

for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{_library}_NUM_THREADS"] = "1"

import numpy as np
import torch
from measure import Result, Target, command_line, environment, finish
from measure import table as plain_table
from numpy.typing import NDArray
from sampler_fleet import Fleet, Slot
from sampler_problems import PROBLEMS

from melissa_gen.sampling import METHODS, Evidence, Sampler, create
from melissa_gen.surrogates import Surrogate, SurrogateProbe

Array = NDArray[np.float64]

_SIMULATIONS, _TIME_STEPS, _DRAWS, _BATCH, _MESH = 10, 100, 25, 32, 32
NETWORKS: dict[str, dict[str, Any]] = {
    "MLP": {"hidden": [256, 256]},
    "FNO": {"n_modes": [12, 12], "hidden_channels": 24, "n_layers": 3},
    "UNet": {"width": 16, "levels": 2},
}
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
    rows = []
    for name, arguments in NETWORKS.items():
        learn, step = _beside(name, arguments, fleet, 1 if args.quick else 3)
        training = step * _SIMULATIONS * _TIME_STEPS * _DRAWS / _BATCH
        rows.append([name, learn, 1000 * step, round(100 * learn / training, 2)])
        result.targets.append(Target(f"{name}, share", 0.02, learn / training, at_least=False))
    title = "\nadaptive, 10 points, beside the training of a generation\n"
    columns = ["network", "generation s", "step ms", "share %"]
    result.notes.append(title + plain_table(columns, rows))
    finish(result, env, args, "sampler_cost")


def _beside(
    name: str, arguments: dict[str, Any], fleet: Fleet, repetitions: int
) -> tuple[float, float]:
    """Returns the median CPU seconds of a generation of `adaptive`, and of an optimizer step."""
    surrogate = Surrogate(
        {name: (100.0, 500.0) for name in fleet.prior.names},
        (0.01, 1.0),
        {"temperature": (_MESH, _MESH)},
        f"melissa_gen.surrogates.{name}",
        arguments,
    )
    surrogate.set_output_statistics({"temperature": 300.0}, {"temperature": 100.0})
    optimizer = torch.optim.Adam(surrogate.parameters())
    rng = np.random.default_rng(0)
    target = torch.randn(_BATCH, _MESH * _MESH)
    steps, generations, sampler = [], [], create("adaptive", fleet.prior, seed=1)
    points = fleet.prior.sample(100, rng)
    for turn in range(2 + repetitions):
        began = time.process_time()
        inputs = torch.from_numpy(fleet.prior.sample(_BATCH, rng))
        output = surrogate.member_outputs(inputs, torch.rand(_BATCH).double())
        loss = (output.reshape(_BATCH, -1) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps.append(time.process_time() - began)
        generations.append(_generation(sampler, surrogate, points, turn, rng))
    return statistics.median(generations[2:]), statistics.median(steps[2:])


def _generation(
    sampler: Sampler, surrogate: Surrogate, points: Array, turn: int, rng: np.random.Generator
) -> float:
    """Returns the CPU seconds of a generation with new evidence on all points."""
    began = time.process_time()
    sampler.observe(SurrogateProbe([copy.deepcopy(surrogate)]))
    sampler.ingest(
        [
            Evidence(i, point, float(np.exp(rng.normal())), samples=turn + 1)
            for i, point in enumerate(points)
        ]
    )
    sampler.update()
    sampler.suggest(_SIMULATIONS)
    return time.process_time() - began


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

"""Breed and OGAS with their published settings, the default sampler, Sobol and uniform draws, by `melissa-gen run`.

    python tests/benchmarks/published/online_samplers.py RESULTS --cases a --seeds 0 1 2
    python tests/benchmarks/published/online_samplers.py RESULTS --cases gray_scott-unet --methods uniform ogas
    python tests/benchmarks/published/online_samplers.py RESULTS --cases a b --table

Part `a` has the one-dimensional equations of the paper on Breed, scaled to 240 simulations of 128 points; part `b` the
flows of the papers on OGAS on 64 x 64 points with 300 simulations, each with an FNO and a U-Net. All train
autoregressive surrogates. One seed of part `a` takes about half an hour on one core, one seed of part `b` several
hours.

Each cell (case, method, seed) is a run of `melissa-gen run`, and its result is kept as a file in RESULTS. An
interrupted command continues where it was: a run that was interrupted is resumed. Commands with different seeds can run
beside each other.

Errors are root mean squares on the scale of the fields, on test simulations from the prior that all methods and seeds
of a case share: of the whole *rollout* from the first time step, and of *one step* from each time step of the solver.
Ratios are those of uniform's error to the method's, the geometric mean over cases and seeds: above 1 is better than
uniform.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cases import CASES, METHODS, PUBLISHED, Case
from measure import ROOT, Result, command_line, environment, finish
from rollout_errors import rollout_errors

KINDS = ("rollout", "one_step")
STATISTICS = ("mean", "std", "p95", "p99", "max")
SIMULATIONS = ROOT / "simulations"

Array = NDArray[np.float64]


def main() -> None:
    """Runs the cells that are missing, and prints the tables."""
    parser = command_line(__doc__)
    add = parser.add_argument
    add("results", type=Path, nargs="?", help="folder of the cells")
    add("--cases", nargs="+", choices=["a", "b", *CASES], default=["a"])
    add("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--seconds", type=float, metavar="S", help="begin no cell after so long")
    add("--table", action="store_true", help="only print the tables of the cells that exist")
    args = parser.parse_args()
    env = environment()
    if args.quick:
        with tempfile.TemporaryDirectory() as folder:
            args.results, args.methods, args.seeds = Path(folder), ["uniform", "breed"], [0]
            small = replace(CASES["kdv"], simulations=8, capacity=4, test=4, draws=1)
            _fill(args, {"kdv": small})
            finish(tables(args.results, ["kdv"]), env, args, "online_samplers")
        return
    if args.results is None:
        parser.error("RESULTS is missing: the folder in which the cells are kept")
    cases = {n: c for n, c in CASES.items() if n in args.cases or c.part in args.cases}
    if not args.table:
        _fill(args, cases)
    finish(tables(args.results, cases), env, args, "online_samplers")


def _fill(args: argparse.Namespace, cases: dict[str, Case]) -> None:
    """Runs the missing cells, all of one seed before those of the next."""
    began = time.monotonic()
    for seed in args.seeds:
        for name, case in cases.items():
            for method in args.methods:
                cell = _cell(args.results, name, method, seed)
                if cell.exists():
                    continue
                if args.seconds and time.monotonic() - began > args.seconds:
                    return
                _run(cell, case, method, seed)


def _cell(results: Path, name: str, method: str, seed: int) -> Path:
    return results / name / f"{method}-{seed}.json"


def _run(cell: Path, case: Case, method: str, seed: int) -> None:
    """Starts or resumes the run of a cell, writes the cell, and deletes the run."""
    began, run_dir = time.monotonic(), cell.with_suffix("")
    program = str(Path(sys.executable).with_name("melissa-gen"))
    if (run_dir / "checkpoints").exists():
        command = [program, "resume", str(run_dir)]
    else:
        shutil.rmtree(run_dir, ignore_errors=True)
        cell.parent.mkdir(parents=True, exist_ok=True)
        words = [w for setting in settings(case, method, seed) for w in ("--set", setting)]
        command = [program, "run", str(SIMULATIONS / case.study), "--run-dir", str(run_dir), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{cell}: the study failed:\n{done.stdout}{done.stderr}")
    summary = json.loads((run_dir / "summary.json").read_text())
    errors = rollout_errors(run_dir / "checkpoints" / "final", run_dir / "validation.h5")
    content = {
        **{kind: values.tolist() for kind, values in errors.items()},
        "batches": summary["training"]["batches"],
        "adaptive": summary["sampler"]["adaptive"],
        "seconds": time.monotonic() - began,
    }
    partial = cell.with_suffix(".part")
    partial.write_text(json.dumps(content) + "\n", encoding="utf-8")
    partial.rename(cell)
    shutil.rmtree(run_dir)
    print(f"{cell.parent.name} {cell.stem}: {content['seconds']:.0f} s", flush=True)


def settings(case: Case, method: str, seed: int) -> list[str]:
    """Returns the settings by which a cell differs from the study in `simulations/`."""
    network, arguments = case.network
    chosen = METHODS[method]
    sampler = {"generation_size": 10, **chosen["sampler"]}
    sampler["generation_size"] = sampler["generation_size"] or case.capacity
    values: dict[str, Any] = {
        "simulation.command": list(case.command),
        "simulation.count": case.simulations,
        "simulation.time_steps": case.steps + 1,
        **{f"simulation.fields.{f}.shape": list(shape) for f, shape in case.shapes.items()},
        "surrogate": {
            "task": {"class": "autoregressive", "arguments": {"predicts": "increment"}},
            "class": f"melissa_gen.surrogates.{network}",
            "arguments": arguments,
        },
        "training": {
            "metric": "absolute",
            "batch_size": case.batch,
            "learning_rate": case.learning_rate,
            "schedule": {
                "class": "ExponentialLR",
                "arguments": {"gamma": 0.1 ** (1 / case.batches)},
            },
            "draws_per_sample": case.draws,
            "max_draws_per_sample": case.draws,
            # Validated at the end only.
            "validation": {"simulations": case.test, "every": 10**9, "reuse": "trusted"},
        },
        "reservoir": {
            "capacity": case.capacity * (case.steps + 1),
            "watermark": max(case.batch, case.capacity * case.steps // 10),
        },
        "sampler": sampler,
        "launcher": {"clients": 1, "report": False},
        "report.trackers": [],
        "seed": seed,
        **{key: value for key, value in chosen.items() if key != "sampler"},
    }
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


# The tables --------------------------------------------------------------------------------------------------------


def tables(results: Path, cases: Iterable[str]) -> Result:
    """Ratios of each case, and of each part over its cases, beside the published ones."""
    result = Result(
        "Uniform's error / the method's",
        ("case", "method", "errors", "seeds", *STATISTICS, "uniform's mean", "batches", "s"),
    )
    logs: dict[tuple[str, str, str], list[Array]] = {}
    for name in cases:
        for method in METHODS:
            if not (cells := _pairs(results, name, method)):
                continue
            for kind in KINDS:
                ratios = [np.log(statistics(u[kind]) / statistics(m[kind])) for u, m in cells]
                logs.setdefault((CASES[name].part, method, kind), []).append(
                    np.mean(ratios, axis=0)
                )
                row = np.exp(np.mean(ratios, axis=0))
                reference = float(np.mean([np.mean(u[kind]) for u, _ in cells]))
                batches, seconds = (
                    float(np.median([m[key] for _, m in cells])) for key in ("batches", "seconds")
                )
                values = [round(float(value), 2) for value in row]
                row_head = (name, method, kind, len(cells))
                result.rows.append((*row_head, *values, reference, batches, seconds))
    for (part, method, kind), means in logs.items():
        values = [round(float(value), 2) for value in np.exp(np.mean(means, axis=0))]
        head = (f"{part}, {len(means)} cases", method, kind, None)
        result.rows.append((*head, *values, None, None, None))
    for part in {part for part, _, _ in logs}:
        for method, known in PUBLISHED[part].items():
            values = [known.get(s) for s in STATISTICS]
            result.rows.append((part, method, "published", None, *values, None, None, None))
    if any(part == "a" for part, _, _ in logs):
        result.notes.append(
            "breed, published: the rollout error in one dimension had a ratio of 0.98"
        )
    return result


def _pairs(results: Path, name: str, method: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Returns the cells of uniform and of a method, for each seed that both have."""
    found = []
    for path in sorted((results / name).glob(f"{method}-*.json")):
        reference = path.with_name(f"uniform-{path.stem.rpartition('-')[2]}.json")
        if reference.exists():
            found.append((json.loads(reference.read_text()), json.loads(path.read_text())))
    return found


def statistics(errors: Iterable[float]) -> Array:
    """Returns the `STATISTICS` of the errors of all test simulations."""
    values = np.array(list(errors))
    p95, p99 = np.quantile(values, (0.95, 0.99))
    return np.array([values.mean(), values.std(), p95, p99, values.max()])


if __name__ == "__main__":
    main()

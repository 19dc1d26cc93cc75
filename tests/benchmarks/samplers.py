"""Compares samplers: the same budget of simulations and optimizer steps, the same seeds, all methods in one run.

    python tests/benchmarks/samplers.py --problem burgers --seeds 5
    python tests/benchmarks/samplers.py --problem burgers --methods pool,twisted --equal-time
    python tests/benchmarks/samplers.py --problem all --methods sobol,lhs,adaptive,breed_published --seeds 10
    python tests/benchmarks/samplers.py --problem held-out --methods sobol,diffusion_posterior,adaptive --seeds 10
    python tests/benchmarks/samplers.py --problem all --metric relative --methods adaptive,pool --seeds 10
    python tests/benchmarks/samplers.py --quick

Ratios are those of uniform's error to the method's: above 1 is better than uniform. An error is that of one
simulation, over all of its times and points; there are 1,000 of them, drawn from the prior. It is *absolute*, in
standard deviations of the field over all simulations, or *relative* to the RMS of the simulation itself. Both are
printed; `--metric` is what every method trains and samples by, as `training.metric` of a study. The ratio is a
geometric mean over the seeds, in brackets its 95 % interval (bootstrap over the seeds of both). `oracle` is `pool`
scored by the true error (`oracle:beta=1.4` with another exponent), and `sbal` and `lcmd` are batch active learning
(`sampler_baselines.py`). The column `weights` says whether the losses of a method had importance weights (p/q)^0.5,
which needs a known density. A last table says how often the errors stay below their bounds of three levels.

`--problem held-out` runs the problems of `sampler_held_out.py`. They were not used to develop a sampler: run them once,
for the final report, and do not tune on the result.

Every finished cell (problem, method, seed) is kept in the results folder, so an interrupted run continues where it
was; `--seconds` cuts it on purpose. With `--equal-time` each method takes fewer optimizer steps than uniform, by as
much as its sampler's seconds cost; that needs its cells at equal simulations.
"""

# ruff: noqa: E402 (the libraries read their number of threads when they are imported)
import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

for _library in ("OMP", "OPENBLAS", "MKL"):  # one core: what is timed is what one core does
    os.environ[f"{_library}_NUM_THREADS"] = "1"

import numpy as np
import torch
from measure import Result, Target, command_line, environment, finish
from measure import table as plain_table
from numpy.typing import NDArray
from sampler_baselines import BASELINES, BatchActive
from sampler_coverage import LEVELS, coverage
from sampler_fleet import Fleet, Slot
from sampler_held_out import HELD_OUT
from sampler_oracle import Oracle
from sampler_problems import PROBLEMS, Fields, Problem
from sampler_settings import SETTINGS, Setting

from melissa_gen.sampling import METHODS, DifficultyTracker, Prior, Sampler, create

Array = NDArray[np.float64]

ALWAYS = ("uniform", "uniform_resampled", "sobol", "pool")
DEFAULT = (
    *(*ALWAYS, "lhs", "adaptive", "diffusion_posterior", "twisted"),
    *("breed_published", "ogas_published", *BASELINES, "oracle"),
)
QUICK = (*ALWAYS, "diffusion_posterior", "oracle")
METRICS = ("mean", "median", "rms", "std", "p95", "p99", "max")
DEVELOPMENT = tuple(name for name in PROBLEMS if name != "quick")
TARGETS = {
    False: {"mean": 1.10, "std": 1.5, "p99": 1.45, "max": 1.6},
    True: {"mean": 1.05, "p99": 1.3},
}
EXPONENT = 0.5
"""γ of the importance weights, for every method that knows its density."""

TEST = 1000
_TOGETHER = 5
_LEFT = 75
"""Exit status where `--seconds` were over before all cells were there."""


def main() -> None:
    parser = command_line(__doc__)
    add = parser.add_argument
    add("--problem", choices=[*PROBLEMS, *HELD_OUT, "all", "held-out"], default="burgers")
    add("--methods", default=",".join(DEFAULT), help="those that always run are added")
    add("--only", action="store_true", help="but uniform, nothing beside the methods named")
    add("--seeds", type=int, default=5, metavar="N")
    add("--metric", choices=["absolute", "relative"], default="absolute")
    add("--equal-time", action="store_true", help="the sampler's cost is taken from the training")
    add("--seconds", type=float, metavar="S", help="begin nothing new after so long; go on later")
    add("--results", type=Path, default=Path(__file__).parent / "results" / "samplers")
    add("--plots", type=Path, metavar="FOLDER", help="draw the errors and the points there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    env = environment()
    if args.quick:
        args.problem, args.methods, args.seeds = "quick", ",".join(QUICK), 2
        with tempfile.TemporaryDirectory() as folder:
            args.results = Path(folder)
            _fill(args)
            finish(_result(args), env, args, "samplers")
        return
    names = {"all": DEVELOPMENT, "held-out": tuple(HELD_OUT)}.get(args.problem, (args.problem,))
    whole, json_path, found = True, args.json, []
    for name in names:
        args.problem = name
        whole = _fill(args) and whole
        if json_path and len(names) > 1:
            args.json = json_path.with_stem(f"{json_path.stem}-{name}")
        if _cells(args).get("uniform"):
            found.append(_result(args))
            finish(found[-1], env, args, "samplers")
        if args.plots:
            from sampler_plots import draw_errors, draw_points

            cells = _cells(args)
            draw_errors(cells, args.plots / f"errors_{name}.png")
            draw_points(problem_of(args), cells, args.plots / f"points_{name}.png")
    if len(names) > 1:
        print(over_families([result.details for result in found]))
    if not whole:
        sys.exit(_LEFT)


def over_families(details: Sequence[dict[str, Any]]) -> str:
    """Returns tables of the geometric means over problems of the errors of `sobol` divided by those of each method."""
    text = []
    for kind, key in (("absolute", "ratio"), ("relative", "relative_ratio")):
        rows = []
        methods = [m for m in details[0][key] if all(m in one[key] for one in details)]
        for method in methods if "sobol" in methods else []:
            logs = [
                [np.log(one[key][method][k][0] / one[key]["sobol"][k][0]) for k in METRICS]
                for one in details
            ]
            means, worst = np.exp(np.mean(logs, axis=0)), float(np.exp(np.min(logs)))
            rows.append([method, *(round(float(value), 2) for value in means), round(worst, 2)])
        if rows:
            title = f"\n{len(details)} problems, {kind} errors, sobol's error / the method's\n"
            text.append(title + plain_table(["method", *METRICS, "worst"], rows))
    return "\n".join(text)


def problem_of(args: argparse.Namespace) -> Problem:
    """Returns the development or held-out problem of the command line."""
    return {**PROBLEMS, **HELD_OUT}[args.problem]


def methods_of(args: argparse.Namespace) -> list[str]:
    """Returns the requested methods and those that always run, in a fixed order."""
    asked = [name for name in args.methods.split(",") if name]
    legal = ["oracle", *BASELINES, *METHODS, *SETTINGS]
    if unknown := [name for name in asked if name.split(":")[0] not in legal]:
        sys.exit(f"no method {', '.join(unknown)}; there are {', '.join(legal)}")
    names = list(dict.fromkeys(["uniform", *(() if args.only else ALWAYS), *asked]))
    return [name for name in names if not (args.equal_time and name == "oracle")]


def _fill(args: argparse.Namespace) -> bool:
    """Runs the missing cells; returns whether all are complete."""
    began = time.monotonic()
    problem = problem_of(args)
    missing: dict[tuple[int, int], list[tuple[str, int]]] = {}
    for method in methods_of(args):
        for seed in range(args.seeds):
            if not _path(args, method, seed).exists():
                # The steps per simulation are the same in larger generations.
                size = setting_of(method).per_round or problem.per_round
                steps = _steps(args, problem, method) * size // problem.per_round
                missing.setdefault((size, steps), []).append((method, seed))
    for (size, steps), cells in missing.items():
        sized = replace(problem, per_round=size)
        for first in range(0, len(cells), _TOGETHER):
            if args.seconds and time.monotonic() - began > args.seconds:
                return False
            _run(args, sized, cells[first : first + _TOGETHER], steps)
    return True


def _run(
    args: argparse.Namespace, problem: Problem, cells: Sequence[tuple[str, int]], steps: int
) -> None:
    """Runs some cells in lockstep and saves each."""
    points, fields = _test_set(args, problem)
    scale = float(fields.mean()), float(fields.std())
    slots = [
        Slot(_sampler(method, problem.prior, seed), seed, EXPONENT, _tracker(method))
        for method, seed in cells
    ]
    fleet = Fleet(problem, slots, scale, steps, relative=args.metric == "relative")
    for k, slot in enumerate(slots):
        if isinstance(slot.sampler, Oracle):
            slot.sampler.attach(fleet, k, *_oracle_pool(args, problem))
        elif isinstance(slot.sampler, BatchActive):
            slot.sampler.attach(fleet, k)
    began = time.monotonic()
    fleet.run()
    errors = fleet.errors(points, fields)
    names = ", ".join(f"{method} {seed}" for method, seed in cells)
    print(f"{problem.name}, {time.monotonic() - began:.0f} s: {names}", flush=True)
    for (method, seed), slot, error in zip(cells, slots, errors, strict=True):
        path = _path(args, method, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part.npz")
        np.savez_compressed(
            partial,
            errors=error,
            points=np.array(slot.points),
            adaptive=np.array(slot.adaptive),
            log_density=np.array(slot.log_density),
            first_losses=slot.tracker.mean_losses(),
            sampler_seconds=slot.sampler_seconds,
            steps=steps,
        )
        partial.rename(path)


def setting_of(method: str) -> Setting:
    """Returns the setting of a published method, of a method, or of one with arguments: `breed:regime=soft`."""
    if method in SETTINGS:
        return SETTINGS[method]
    name, _, given = method.partition(":")
    pairs = [pair.partition("=") for pair in given.split("+") if pair]
    return Setting(name, {key: _number(value) for key, _, value in pairs})


def _sampler(method: str, prior: Prior, seed: int) -> Sampler:
    if method in BASELINES:
        return BatchActive(method, prior, seed)
    setting = setting_of(method)
    if setting.method == "oracle":
        return Oracle(prior, seed, **setting.arguments)
    return create(setting.method, prior, seed=seed, arguments=setting.arguments)


def _number(text: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _path(args: argparse.Namespace, method: str, seed: int, equal_time: bool | None = None) -> Path:
    timed = args.equal_time if equal_time is None else equal_time
    folder = args.problem + ("-relative" if args.metric == "relative" else "")
    folder += "-equal-time" if timed and method != "uniform" else ""
    return Path(args.results) / folder / f"{method.replace(':', '~')}-{seed}.npz"


def _cells(args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Maps each method to its completed cells."""
    found: dict[str, list[dict[str, Any]]] = {}
    for method in methods_of(args):
        for seed in range(args.seeds):
            if (path := _path(args, method, seed)).exists():
                with np.load(path) as arrays:
                    found.setdefault(method, []).append(dict(arrays))
    return found


# The budget --------------------------------------------------------------------------------------------------------


def _steps(args: argparse.Namespace, problem: Problem, method: str) -> int:
    """Returns the optimizer steps of a round; at equal time, the cost of the sampler is subtracted."""
    if not args.equal_time or method == "uniform":
        return problem.steps
    paths = [_path(args, method, seed, equal_time=False) for seed in range(args.seeds)]
    costs = [float(np.load(path)["sampler_seconds"]) for path in paths if path.exists()]
    if not costs:
        sys.exit(f"--equal-time needs the cells of {method} at equal simulations first")
    affordable = float(np.median(costs)) / (problem.rounds * _step_seconds(args, problem))
    return max(1, round(problem.steps - affordable))


def _step_seconds(args: argparse.Namespace, problem: Problem) -> float:
    """Returns the CPU seconds of one optimizer step of one network; measured once, then cached."""
    path = Path(args.results) / args.problem / "step_seconds.txt"
    if not path.exists():
        small = replace(problem, simulations=problem.per_round * 4, steps=100)
        slot = Slot(create("uniform", problem.prior, seed=0), 0, 0.0)
        fleet = Fleet(small, [slot], (0.0, 1.0))
        seconds: list[float] = []
        fleet.run(lambda fleet: seconds.append(fleet.train_seconds))
        each = min(b - a for a, b in pairwise(seconds)) / small.steps
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{each}\n", encoding="utf-8")
    return float(path.read_text(encoding="utf-8"))


def _tracker(method: str) -> DifficultyTracker:
    """Returns a tracker of the difficulty signal with which the method was published."""
    return DifficultyTracker("delta_loss" if setting_of(method).method == "breed" else "loss")


def _test_set(args: argparse.Namespace, problem: Problem) -> tuple[Array, Fields]:
    return solved(args, problem, "test", 64 if args.quick else TEST, 12345)


def _oracle_pool(args: argparse.Namespace, problem: Problem) -> tuple[Array, Fields]:
    return solved(args, problem, "oracle", 128 if args.quick else 4096, 777)


def solved(
    args: argparse.Namespace, problem: Problem, name: str, count: int, seed: int
) -> tuple[Array, Fields]:
    """Returns draws of the prior and their fields, which are solved once and cached."""
    path = Path(args.results) / args.problem / f"{name}.npz"
    if not path.exists():
        points = problem.prior.sample(count, np.random.default_rng(seed))
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, points=points, fields=problem.solve(points))
    with np.load(path) as arrays:
        return arrays["points"], arrays["fields"]


# What is said of it ------------------------------------------------------------------------------------------------


def figures(errors: Array) -> dict[str, float]:
    """The metrics of errors (n,)."""
    p95, p99 = np.quantile(errors, (0.95, 0.99))
    rms = np.sqrt((errors**2).mean())
    values = (errors.mean(), np.median(errors), rms, errors.std(), p95, p99, errors.max())
    return {name: float(value) for name, value in zip(METRICS, values, strict=True)}


def ratio_with_interval(reference: Array, found: Array, draws: int = 4000) -> tuple[float, ...]:
    """Geometric mean of reference / found, and the ends of its 95 % bootstrap interval.

    Seeds of the two are drawn independently: they share the network's first weights, not the points.
    """
    rng = np.random.default_rng(0)
    a, b = np.log(reference), np.log(found)
    means_a = a[rng.integers(len(a), size=(draws, len(a)))].mean(axis=1)
    means_b = b[rng.integers(len(b), size=(draws, len(b)))].mean(axis=1)
    low, high = np.quantile(means_a - means_b, (0.025, 0.975))
    return tuple(float(np.exp(x)) for x in (a.mean() - b.mean(), low, high))


def _result(args: argparse.Namespace) -> Result:
    problem, cells = problem_of(args), _cells(args)
    table = {m: [figures(cell["errors"]) for cell in found] for m, found in cells.items()}
    column = {
        m: {k: np.array([row[k] for row in rows]) for k in METRICS} for m, rows in table.items()
    }
    equal = "wall time" if args.equal_time else "simulations and steps"
    result = Result(
        title=(
            f"{problem.name}: d = {problem.prior.dimension}, {problem.simulations} simulations, "
            f"{problem.steps} Adam steps after every {problem.per_round}, {args.metric} loss, equal {equal}; "
            "uniform's error / the method's"
        ),
        columns=["method", "seeds", "weights", *METRICS, "oracle's gain", "sampler s", "steps"],
    )
    oracle = _log_gain(column["uniform"], column["oracle"]) if "oracle" in column else None
    details: dict[str, Any] = {"median_error": {}, "ratio": {}, "errors": table}
    for method, found in column.items():
        ratios = {k: ratio_with_interval(column["uniform"][k], found[k]) for k in METRICS}
        gain = _log_gain(column["uniform"], found) / oracle if oracle else None
        seconds = float(np.median([cell["sampler_seconds"] for cell in cells[method]]))
        texts = ["{:.2f} [{:.2f}, {:.2f}]".format(*ratios[k]) for k in METRICS]
        steps = int(cells[method][0]["steps"])
        weights = "yes" if np.isfinite(cells[method][0]["log_density"]).all() else "no"
        result.rows.append([method, len(found["mean"]), weights, *texts, gain, seconds, steps])
        details["median_error"][method] = {k: float(np.median(found[k])) for k in METRICS}
        details["ratio"][method] = ratios
    if args.problem.startswith("burgers"):
        for method in ("diffusion_posterior", "twisted", "pool"):
            if method in column:
                result.targets += [
                    Target(f"{method}, {k}", wanted, details["ratio"][method][k][0])
                    for k, wanted in TARGETS[args.equal_time].items()
                ]
    if not args.quick:
        step = 1000 * _step_seconds(args, problem)
        result.notes.append(f"one optimizer step of one network by itself: {step:.2f} ms")
    details["relative_ratio"] = _relative_ratios(args, cells)
    rows = [
        [method, *("{:.2f} [{:.2f}, {:.2f}]".format(*ratios[k]) for k in METRICS)]
        for method, ratios in details["relative_ratio"].items()
    ]
    title = "\nthe same with errors relative to the RMS of each simulation\n"
    result.notes.append(title + plain_table(["method", *METRICS], rows))
    if args.metric == "absolute":
        details["coverage"] = coverage(problem, cells, _test_set(args, problem)[0])
        rows = [[method, *shares] for method, shares in details["coverage"].items()]
        title = "\nshare of the test simulations whose error is below its bound, by the level of the bound\n"
        result.notes.append(title + plain_table(["method", *map(str, LEVELS)], rows))
    result.details = details
    return result


def _relative_ratios(
    args: argparse.Namespace, cells: dict[str, list[dict[str, Any]]]
) -> dict[str, dict[str, tuple[float, ...]]]:
    """Returns the ratios of errors that are relative to the RMS of each test simulation."""
    _, fields = _test_set(args, problem_of(args))
    whole = fields.astype(np.float64)
    magnitude = np.sqrt((whole**2).mean(axis=(1, 2))) / whole.std()
    column = {}
    for method, found in cells.items():
        rows = [figures(cell["errors"] / magnitude) for cell in found]
        column[method] = {k: np.array([row[k] for row in rows]) for k in METRICS}
    return {
        method: {k: ratio_with_interval(column["uniform"][k], found[k]) for k in METRICS}
        for method, found in column.items()
    }


def _log_gain(reference: dict[str, Array], found: dict[str, Array]) -> float:
    """Sum of log ratios over the metrics that the targets name."""
    named = TARGETS[False]
    return float(sum(np.log(reference[k]).mean() - np.log(found[k]).mean() for k in named))


if __name__ == "__main__":
    main()

"""Online training against generating a data set first: time to the same validation error, batches per second.

Both have the same solver, study, network, optimizer, number of simulations, batch size, ranks, threads per rank,
number of batches, validation set and interval, and start from the same weights. Their data differ in one respect:
offline every point is drawn from the prior, online the study's sampler chooses them (`--sampler uniform` draws online
from the prior too, so that only the way of training differs).

Online: `melissa-gen run`. Time counts from the start of the command; the validation set, which both need, is there.

Offline: `melissa-gen generate` to HDF5, then as many training processes as the server has ranks (torch DDP), which
run as many batches as online did. Time counts from the start of the generation.
  from disk   each process draws random batches through a torch DataLoader with one worker process, a sample at a
              time from the file, as one has to when the data do not fit into memory
  in memory   each process reads the whole file first, and draws from the array without a worker

The time to an error is interpolated in the validation curve, in the logarithm of the error; the error is the largest
of the three final ones, so that all reach it. The scaled study has 40 simulations; --full is the published one.
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import HEAT, Result, command_line, environment, finish
from offline_training import Curve, offline_run

SCALED = ("simulation.count=40", "reservoir.capacity=800", "training.validation.every=100")
QUICK = (
    "simulation.count=8",
    "reservoir.capacity=200",
    "reservoir.watermark=100",
    "training.draws_per_sample=4",
    "training.validation={simulations: 4, every: 10}",
)
SOURCES = {"disk": "offline, from disk", "memory": "offline, in memory"}


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--full", action="store_true", help="the published study, 100 simulations")
    parser.add_argument("--sampler", help="sampler.method of the online run")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    args = parser.parse_args()
    scale = QUICK if args.quick else () if args.full else SCALED
    settings = [*scale, *args.settings]
    if args.sampler:
        settings.append(f"sampler.method={args.sampler}")
    env = environment()
    with tempfile.TemporaryDirectory() as scratch:
        found, generated, megabytes = compare(Path(scratch), settings)
    finish(_result(found, generated, megabytes), env, args, "online_offline")


def compare(scratch: Path, settings: list[str]) -> tuple[dict[str, dict[str, Any]], float, float]:
    """Runs all three cases; returns their results, the seconds of the generation, and the size of the file in MB."""
    from melissa_gen.launcher.commands.validation_cache import validation_set
    from melissa_gen.report.live import LiveView
    from melissa_gen.study import load_study, write_study

    study = load_study(HEAT, settings)
    validation = validation_set(study, scratch / "validation", LiveView())
    overrides = [word for setting in settings for word in ("--set", setting)]
    online = online_run(HEAT, scratch / "online", overrides)
    data = scratch / "data.h5"
    began = time.perf_counter()
    count = ("--simulations", str(study.simulation.count))
    melissa_gen("generate", str(HEAT), *count, "--output", str(data), *overrides)
    generated = time.perf_counter() - began
    write_study(study, scratch / "study.yaml")
    found = {"online": online}
    for source, name in SOURCES.items():
        job = {
            "study": str(scratch / "study.yaml"),
            "folder": str(study.folder),
            "data": str(data),
            "validation": str(validation),
            "source": source,
            "batches": online["batches"],
            "output": str(scratch / f"{source}.json"),
            "store": str(scratch / f"{source}.store"),
        }
        found[name] = offline_run(scratch / f"{source}.job", job, study.server.ranks, generated)
    return found, generated, data.stat().st_size / 1e6


def melissa_gen(*arguments: str, prefix: Sequence[str] = ()) -> None:
    """Runs `melissa-gen`, after the words of a command that starts it."""
    command = str(Path(sys.executable).with_name("melissa-gen"))
    subprocess.run([*prefix, command, *arguments], check=True)


def online_run(
    study: Path, run_dir: Path, overrides: Sequence[str], prefix: Sequence[str] = ()
) -> dict[str, Any]:
    """Runs a study; returns the same as `offline_run`, with times from the start of the command.

    Args:
        study: The study file.
        run_dir: The run directory.
        overrides: Further arguments of `melissa-gen run`.
        prefix: Command that starts `melissa-gen`.
    """
    wall, began = time.time(), time.perf_counter()
    melissa_gen("run", str(study), "--run-dir", str(run_dir), *overrides, prefix=prefix)
    total = time.perf_counter() - began
    events = [json.loads(line) for line in (run_dir / "events.jsonl").open()]
    summary = json.loads((run_dir / "summary.json").read_text())
    curve: Curve = [
        (e["time"] - wall, e["batches"], e["nrmse"]["mean"])
        for e in events
        if e["event"] == "validation"
    ]
    start = next(e["time"] for e in events if e["event"] == "training_started") - wall
    return {
        "batches": summary["training"]["batches"],
        "total": total,
        "start": start,
        "curve": curve,
        "batches_per_second": summary["training"]["batches"] / (curve[-1][0] - start),
    }


def _result(found: dict[str, dict[str, Any]], generated: float, megabytes: float) -> Result:
    result = Result(
        "Online against generating first: the heat study",
        (
            "training",
            "s to first batch",
            "s to same error",
            "s in total",
            "batches",
            "batches/s",
            "final NRMSE",
            "time to error / online",
            "batches/s / online",
        ),
    )
    error = max(one["curve"][-1][2] for one in found.values())
    online = found["online"]
    reached = {name: time_to(one["curve"], error) for name, one in found.items()}
    for name, one in found.items():
        result.rows.append(
            (
                name,
                one["start"],
                reached[name],
                one["total"],
                one["batches"],
                one["batches_per_second"],
                one["curve"][-1][2],
                reached[name] / reached["online"],
                one["batches_per_second"] / online["batches_per_second"],
            )
        )
    result.notes += [
        f"same error: validation NRMSE {error:.4g}",
        f"offline includes {generated:.1f} s of generation, {megabytes:,.0f} MB of HDF5",
    ]
    result.details = {"curves": found, "error": error, "generation_seconds": generated}
    return result


def time_to(curve: Curve, error: float) -> float:
    """Returns when the validation error first falls to this one; between two points log-linear."""
    before = None
    for seconds, _, now in curve:
        if now <= error:
            if before is None or before[1] <= now:
                return seconds
            share = math.log(before[1] / error) / math.log(before[1] / now)
            return before[0] + share * (seconds - before[0])
        before = (seconds, now)
    return math.nan


if __name__ == "__main__":
    main()

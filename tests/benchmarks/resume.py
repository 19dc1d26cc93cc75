"""A study that is killed at 80 % and resumed, against the same study that is not interrupted.

Launcher, server and solvers of a small heat study are killed by SIGKILL after 80 % of the simulations, and
`melissa-gen resume` continues from the last checkpoint: once with the samples in memory in the checkpoint
(`reservoir.checkpoint: true`), once without. Cases take turns, each seed is one repetition, and a ratio is the median
over the seeds of the error after resuming, divided by the error of the uninterrupted study of the same seed. The spread
of the uninterrupted errors over the seeds shows what is noise.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import yaml
from measure import (
    HEAT,
    ROOT,
    Result,
    Target,
    command_line,
    environment,
    finish,
    interleaved,
    quantile,
)

METRICS = ("mean", "p95", "max")
CASES = ("uninterrupted", "resumed", "resumed, empty reservoir")
KILLED_AT = 0.8
MELISSA_GEN = Path(sys.executable).with_name("melissa-gen")


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--simulations", type=int, default=60)
    args = parser.parse_args()
    seeds, count = (1, 15) if args.quick else (args.seeds, args.simulations)
    env = environment()
    seed_of = dict.fromkeys(CASES, 0)

    def run(case: str) -> dict[str, Any]:
        seed_of[case] += 1
        return errors(case, seed_of[case], count)

    found = interleaved({case: lambda case=case: run(case) for case in CASES}, seeds)  # type: ignore[misc]
    columns = ("case", *(f"NRMSE {m}" for m in METRICS), *(f"{m} / uninterrupted" for m in METRICS))
    result = Result("A study killed at 80 % and resumed", columns)
    plain = found[CASES[0]]
    for case in CASES:
        medians = [statistics.median(one[m] for one in found[case]) for m in METRICS]
        ratios = [
            statistics.median(one[m] / two[m] for one, two in zip(found[case], plain, strict=True))
            for m in METRICS
        ]
        result.rows.append((case, *medians, *ratios))
        result.details[case] = found[case]
        if case == "resumed":
            for metric, ratio in zip(METRICS[:2], ratios, strict=False):
                values = [one[metric] for one in plain]
                noise = quantile(values, 1.0) / statistics.median(values)
                what = f"{metric} / uninterrupted, against the largest of all seeds / median"
                result.targets.append(Target(what, max(noise, 1.05), ratio, at_least=False))
    finish(result, env, args, "resume")


def errors(case: str, seed: int, count: int) -> dict[str, Any]:
    """Runs the study; returns the validation error and the number of samples in memory after resuming."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, run_dir = folder / "study.yaml", folder / "run"
        path.write_text(yaml.safe_dump(study(case, seed, count)), encoding="utf-8")
        command = [str(MELISSA_GEN), "run", str(path), "--run-dir", str(run_dir)]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
            if case != CASES[0]:
                kill_at(process, run_dir, round(KILLED_AT * count))
                command = [str(MELISSA_GEN), "resume", str(run_dir)]
                process = subprocess.Popen(command, stdout=log, stderr=log)
            if process.wait() != 0:
                sys.exit(f"the study failed:\n{(folder / 'log').read_text()}")
        summary = json.loads((run_dir / "summary.json").read_text())
        resumed = events(run_dir, "resumed")
        restored = resumed[0]["samples_restored"] if resumed else None
        return summary["validation"]["nrmse"] | {"restored": restored}


def study(case: str, seed: int, count: int) -> dict[str, Any]:
    """The heat study on a coarse mesh; the reservoir holds a third of all samples."""
    found: dict[str, Any] = yaml.safe_load(HEAT.read_text(encoding="utf-8"))
    mesh, steps = 24, 20
    solver = ROOT / "simulations" / "heat" / "heat.py"
    found["simulation"] |= {
        "command": [sys.executable, str(solver), "--mesh", str(mesh), "--steps", str(steps)],
        "count": count,
        "processes": 1,
        "time_steps": steps,
        "times": {"start": 0.05, "interval": 0.05, "unit": "s"},
    }
    found["simulation"]["fields"]["temperature"]["shape"] = [mesh, mesh]
    found["training"] |= {
        "draws_per_sample": 50,
        "halve_every": count * 10,
        "checkpoint_every": 1,
        "validation": {"simulations": 40, "every": 100_000},
    }
    found["reservoir"] = {
        "capacity": count * steps // 3,
        "watermark": 64,
        "checkpoint": case == "resumed",
    }
    found["sampler"] = {"method": "uniform", "generation_size": 10}
    found["server"], found["seed"] = {"ranks": 1}, seed
    return found


def events(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    """Returns the complete events of a kind."""
    path = run_dir / "events.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return [event for event in found if event["event"] == kind]


def kill_at(process: subprocess.Popen[bytes], run_dir: Path, finished: int) -> None:
    """Kills the launcher and its processes at the first checkpoint after a number of finished simulations."""
    while len(events(run_dir, "simulation_finished")) < finished and process.poll() is None:
        time.sleep(0.05)
    saved = len(events(run_dir, "checkpoint"))
    while len(events(run_dir, "checkpoint")) == saved and process.poll() is None:
        time.sleep(0.05)
    if process.poll() is not None:
        sys.exit(f"the study ended before it could be killed:\n{run_dir}")
    launcher = psutil.Process(process.pid)
    everything = [launcher, *launcher.children(recursive=True)]
    for one in everything:
        one.kill()
    psutil.wait_procs(everything[1:])
    process.wait()


if __name__ == "__main__":
    main()

"""The time from the command to the first sample of the heat study, stage by stage.

Runs `melissa-gen run simulations/heat/study.yaml` until the first batch and then ends it: without a validation set,
with one that an earlier run has made (one of its simulations is solved again), and with one that is solved first. Cases
take turns. A stage is the time since the stage before, as a median over the repetitions. The CPU time is that of all
processes of the run until the first sample, and means something on a busy machine, too.
"""

import argparse
import contextlib
import itertools
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from measure import HEAT, Result, Target, command_line, environment, finish, interleaved

MELISSA_GEN = Path(sys.executable).with_name("melissa-gen")
WANTED_SECONDS = 5.0
LONGEST = 300.0
NONE, KNOWN, NEW = CASES = ("none", "made by an earlier run", "to be solved")
STAGES = (
    "launcher has checked the study",
    "validation set is complete",
    "server can receive",
    "client is connected",
    "first sample",
    "first batch",
)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--repetitions", type=int, default=5, metavar="N")
    parser.add_argument("--study", type=Path, default=HEAT, help="default: the heat study")
    args = parser.parse_args()
    repetitions = 1 if args.quick else args.repetitions
    env = environment()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = interleaved(
            {case: lambda case=case: measured(case, args, folder) for case in CASES},  # type: ignore[misc]
            repetitions,
        )
    columns = ("validation set", *STAGES[:-1], "total, s", "CPU, s", "then to the first batch, s")
    result = Result("From the command to the first sample, seconds of each stage", columns)
    for case in CASES:
        stages = [
            statistics.median(one["stages"][stage] for one in found[case]) for stage in STAGES
        ]
        total = statistics.median(one["total"] for one in found[case])
        cpu = statistics.median(one["cpu"] for one in found[case])
        result.rows.append((case, *stages[:-1], total, cpu, stages[-1]))
        result.details[case] = found[case]
        if case != NEW:
            what = f"seconds to the first sample, validation set: {case}"
            result.targets.append(Target(what, WANTED_SECONDS, total, at_least=False))
    result.notes.append("A validation set that is solved takes as long as its solver needs.")
    finish(result, env, args, "first_sample")


def measured(case: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Runs the study until its first batch; returns the seconds of each stage, their sum and the CPU seconds."""
    runs = folder / case.replace(" ", "_")
    if case == NEW:
        shutil.rmtree(runs / "validation", ignore_errors=True)
    elif case == KNOWN and not (runs / "validation").exists():
        started(args.study, runs / "earlier", [])
    count = 0 if case == NONE else 5 if args.quick else 20
    words = ["--set", f"training.validation.simulations={count}"]
    run_dir = runs / f"run-{time.monotonic_ns()}"
    try:
        return started(args.study, run_dir, words)
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)


def started(study: Path, run_dir: Path, words: list[str]) -> dict[str, Any]:
    """Runs a study until its first batch."""
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    command = [str(MELISSA_GEN), "run", str(study), "--run-dir", str(run_dir), *words]
    times, cpu = {"command": time.time()}, 0.0
    with (run_dir.parent / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            while STAGES[-1] not in times:
                if process.poll() is not None or time.time() - times["command"] > LONGEST:
                    sys.exit(f"no first batch:\n{(run_dir.parent / 'log').read_text()}")
                time.sleep(0.01)
                times |= reached(run_dir)
                if STAGES[-2] in times and not cpu:
                    cpu = cpu_seconds(psutil.Process(process.pid))
        finally:
            end(process)
    # Without a validation set, none is waited for.
    times.setdefault(STAGES[1], times[STAGES[0]])
    order = ["command", *STAGES]
    stages = {two: times[two] - times[one] for one, two in itertools.pairwise(order)}
    return {"stages": stages, "total": times[STAGES[-2]] - times["command"], "cpu": cpu}


def reached(run_dir: Path) -> dict[str, float]:
    """Returns when each stage was reached, as far as the files of the run say."""
    found: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError):
        run = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
        found[STAGES[0]] = run["created"]
        if not run["purpose"]["awaits_sets"] and (run_dir / "validation.h5").exists():
            found[STAGES[1]] = (run_dir / "run.json").stat().st_mtime
    kinds = ("server_ready", "client_connected", "first_sample", "training_started")
    with contextlib.suppress(OSError, ValueError):
        for line in (run_dir / "events.jsonl").read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            if event["event"] in kinds:
                stage = STAGES[2 + kinds.index(event["event"])]
                found.setdefault(stage, event["time"])
    return found


def cpu_seconds(launcher: psutil.Process) -> float:
    """Returns the CPU time of a process and its descendants, including those that have ended."""
    seconds = 0.0
    for one in [launcher, *launcher.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            # user, system, and the same of children that have ended
            seconds += sum(one.cpu_times()[:4])
    return seconds


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a run at once: the second interrupt kills all jobs."""
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)


if __name__ == "__main__":
    main()

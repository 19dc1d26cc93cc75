"""Other ways to bring the fields of solvers into a training process, beside melissa_gen.

    peers-venv/bin/python tests/benchmarks/peers/run.py [--parts PART ...] [--peers NAME ...] [--quick]

`requirements.txt` says how the environment is made. A peer that is not installed is a row that says so.

transport   fields per second that arrive in another process and are copied into a row of an array there. The solver
            computes nothing. melissa_gen also checks the values, and has its samples in the reservoir.
beside      batches per second of a training loop while fields of 40 KB arrive, relative to the same loop while none do:
            a plain loop and a thread that copies what a peer brings (`beside.py`), or the trainer and the reservoir of
            melissa_gen (`trainer_beside_ingest.py`).
end to end  64 heat simulations of 100 time steps on one core, 1,200 batches on another: seconds from the command to
            the trained model, and its error on the same validation set. Of the peers, a thread copies what arrives
            into a table, and a plain loop draws from all that is there, with the same network, optimizer, batch size
            and number of batches. They solve points from the prior. melissa_gen is the whole `melissa-gen run`, with
            its sampler and its report.

All take turns, and a ratio is the median of the ratios to melissa_gen in the same turn.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import HEAT, ROOT, Result, Target, command_line, environment, finish, interleaved
from worker import PEERS, missing, module_of

HERE = Path(__file__).resolve().parent
OURS = "melissa_gen"
VALUES = {"4 KB": 1024, "40 KB": 10_000, "1 MiB": 1 << 18, "4 MiB": 1 << 20}
SMALL = ("4 KB", "40 KB")
SETTINGS = (
    "simulation.processes=1",
    "server.ranks=1",
    "launcher.clients=1",
)
PATIENCE = 300
"""Longest time of a measurement (seconds)."""

Found = dict[str, list[dict[str, Any]]]
"""The results of each peer, one for each turn."""


def main() -> None:
    parser = command_line(__doc__)
    parts = {"transport": transport, "beside": beside, "end_to_end": end_to_end}
    parser.add_argument("--parts", nargs="*", choices=list(parts), default=list(parts))
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), metavar="NAME")
    parser.add_argument("--repetitions", type=int, default=5, metavar="N")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a measurement of transport")
    args = parser.parse_args()
    if args.quick:
        args.repetitions, args.seconds = 1, 0.5
    env = environment()
    for part in args.parts:
        result = parts[part](args)
        result.notes += configurations(args.peers)
        finish(result, env, args, f"peers_{part}")
        if args.json:
            args.json.rename(args.json.with_stem(f"{args.json.stem}_{part}"))


def configurations(peers: list[str]) -> list[str]:
    """Returns a line for each peer that says how it was used, or what is missing."""
    return [f"{name}: {missing(name) or module_of(name).CONFIGURATION}" for name in peers]


def worker(peer: str, *words: str) -> dict[str, Any]:
    """Runs a measurement of a peer; returns its result and the wall-clock time of the process."""
    if problem := missing(peer):
        return {"missing": problem}
    ranks = getattr(module_of(peer), "RANKS", 1)
    launcher = (
        [str(Path(sys.executable).with_name("mpirun")), "-n", str(ranks)] if ranks > 1 else []
    )
    return run([*launcher, sys.executable, str(HERE / "worker.py"), words[0], peer, *words[1:]])


def run(command: list[str]) -> dict[str, Any]:
    """Runs a command whose last line is JSON; returns it with `seconds`, or why there is no result."""
    began = time.perf_counter()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        print(f"       no result: {' '.join(command[-3:])}", file=sys.stderr, flush=True)
        return {"missing": f"no result within {PATIENCE} s"}
    seconds = time.perf_counter() - began
    print(f"{seconds:6.1f} s  {' '.join(command[-3:])}", file=sys.stderr, flush=True)
    if done.returncode:
        return {"missing": (done.stderr.strip().splitlines() or ["?"])[-1][:150]}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) | {"seconds": seconds}


def ratio(found: Found, peer: str, key: str) -> float | None:
    """Returns the median ratio of a peer to melissa_gen, or None."""
    pairs = zip(found[peer], found[OURS], strict=True)
    ratios = [one[key] / ours[key] for one, ours in pairs if key in one and key in ours]
    return statistics.median(ratios) if ratios else None


def median(found: list[dict[str, Any]], key: str) -> float | None:
    """Returns the median of the results that there are, or None."""
    values = [one[key] for one in found if key in one]
    return statistics.median(values) if values else None


# Transport.


def transport(args: Any) -> Result:
    """Returns the rates of all peers relative to melissa_gen."""
    sizes = dict(list(VALUES.items())[:: 2 if args.quick else 1])
    columns = ("transport", *sizes)
    result = Result("Fields per second into another process, relative to melissa_gen", columns)
    by_size: dict[str, Found] = {}
    for size, values in sizes.items():
        cases = {OURS: partial(_ours, values, args)}
        for peer in args.peers:
            cases[peer] = partial(worker, peer, "transport", str(values), str(args.seconds))
        by_size[size] = interleaved(cases, args.repetitions)
    rates = [median(found[OURS], "rate") for found in by_size.values()]
    result.rows.append((f"{OURS}, fields/s", *rates))
    for peer in args.peers:
        ratios = [ratio(found, peer, "rate") for found in by_size.values()]
        result.rows.append((peer, *ratios))
    result.notes += problems(by_size)
    for name, least in (("raw pyzmq", 1.0), ("adios2 SST", 5.0)):
        for size in sizes if name in args.peers else ():
            if name == "adios2 SST" and size not in SMALL:
                continue
            if theirs := ratio(by_size[size], name, "rate"):
                result.targets.append(Target(f"{OURS} / {name}, {size}", least, 1 / theirs))
    result.details = {"rates": by_size}
    return result


def problems(by_size: dict[str, Found]) -> list[str]:
    """Returns a line for each measurement that has failed, except for peers that are not installed."""
    return [
        f"{peer}, {size}: {one['missing']}"
        for size, found in by_size.items()
        for peer, ones in found.items()
        for one in ones
        if "missing" in one and (peer == OURS or not missing(peer))
    ]


def _ours(values: int, args: Any) -> dict[str, Any]:
    script = str(HERE.parent / "ingest_window.py")
    warm = "0.3" if args.quick else "1.0"
    words = ("ipc", str(values), "--warm", warm, "--seconds", str(args.seconds))
    return run([sys.executable, script, str(ROOT), *words])


# Beside a trainer.


def beside(args: Any) -> Result:
    """Returns the batch rates of all peers and of melissa_gen while fields arrive."""
    seconds = 0.5 if args.quick else 2.5
    cases = {OURS: partial(_our_trainer, args)}
    # What is written first and read later does not arrive beside a trainer.
    for peer in [peer for peer in args.peers if not hasattr(module_of(peer), "rate")]:
        cases[peer] = partial(worker, peer, "beside", str(seconds))
    found = interleaved(cases, args.repetitions)
    columns = (
        "way",
        "batches/s alone",
        "share at 1,000/s",
        "share saturated",
        "fields/s saturated",
    )
    result = Result("Batch rate of a training loop beside fields of 40 KB", columns)
    for name, ones in found.items():
        keys = ("alone", "1,000/s", "saturated", "fields, saturated")
        result.rows.append((name, *(median(ones, key) for key in keys)))
    result.notes += problems({"beside": found})
    result.details = dict(found)
    return result


def _our_trainer(args: Any) -> dict[str, Any]:
    script = str(HERE.parent / "trainer_beside_ingest.py")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        words = ["--repetitions", "4", "--json", str(file), *(["--quick"] if args.quick else [])]
        command = [sys.executable, script, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return {"missing": (done.stderr.strip().splitlines() or ["?"])[-1][:150]}
        windows = json.loads(file.read_text())["details"]["unpinned"]
    alone = [window["batches"] for window in windows["idle"]]
    result = {"alone": statistics.median(alone)}
    for mode in ("1,000/s", "saturated"):
        shares = [w["batches"] / a for w, a in zip(windows[mode], alone, strict=True)]
        result[mode] = statistics.median(shares)
        result[f"fields, {mode}"] = statistics.median(w["samples"] for w in windows[mode])
    return result


# End to end.


def end_to_end(args: Any) -> Result:
    """Returns seconds and errors of all peers and of melissa_gen."""
    count, draws = (8, 2.0) if args.quick else (64, 6.0)
    settings = [
        *SETTINGS,
        f"simulation.count={count}",
        f"training.draws_per_sample={draws}",
        f"training.validation={{simulations: {4 if args.quick else 20}, every: 100000}}",
    ]
    with tempfile.TemporaryDirectory() as folder:
        job = prepared(Path(folder), settings)
        cases = {OURS: partial(_whole_study, Path(folder), settings)}
        for peer in args.peers:
            cases[peer] = partial(worker, peer, "end_to_end", str(job))
        found = interleaved(cases, args.repetitions)
    columns = ("way", "seconds", "relative to melissa_gen", "validation NRMSE", "batches")
    result = Result(f"{count} heat simulations, from the command to the trained model", columns)
    for name, ones in found.items():
        values = [median(ones, key) for key in ("error", "batches")]
        result.rows.append((name, median(ones, "seconds"), ratio(found, name, "seconds"), *values))
    result.notes += problems({"end to end": found})
    if theirs := "raw pyzmq" in args.peers and ratio(found, "raw pyzmq", "seconds"):
        what = f"seconds of {OURS} / raw pyzmq"
        result.targets.append(Target(what, 1.1, 1 / theirs, at_least=False))
    result.details = dict(found)
    return result


def prepared(folder: Path, settings: list[str]) -> Path:
    """Solves the validation set, and writes what the peers need to know of the study."""
    import numpy as np

    from melissa_gen.builders.prior import prior_of
    from melissa_gen.launcher.commands.validation_cache import validation_set
    from melissa_gen.report.live import LiveView
    from melissa_gen.study import load_study, write_study

    study = load_study(HEAT, settings)
    validation = validation_set(study, folder / "validation", LiveView())
    write_study(study, folder / "study.yaml")
    simulation, training = study.simulation, study.training
    points = prior_of(study).sample(simulation.count, np.random.default_rng(study.seed))
    samples = simulation.count * simulation.time_steps
    job = {
        "study": str(folder / "study.yaml"),
        "folder": str(study.folder),
        "validation": str(validation),
        "model": str(folder / "model"),
        "points": points.tolist(),
        "mesh": simulation.fields["temperature"].shape[0],
        "steps": simulation.time_steps,
        "watermark": study.reservoir.watermark,
        "batches": round(samples * training.draws_per_sample / training.batch_size),
    }
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    # Fills the cache of the command.
    _whole_study(folder, settings)
    return path


def _whole_study(folder: Path, settings: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=folder) as run_dir:
        overrides = [word for setting in settings for word in ("--set", setting)]
        command = str(Path(sys.executable).with_name("melissa-gen"))
        began = time.perf_counter()
        words = [command, "run", str(HEAT), "--run-dir", run_dir, *overrides]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        if done.returncode:
            return {"missing": (done.stdout + done.stderr).strip().splitlines()[-1][:150]}
        summary = json.loads((Path(run_dir) / "summary.json").read_text())
    error, batches = summary["validation"]["nrmse"]["mean"], summary["training"]["batches"]
    return {"seconds": seconds, "error": error, "batches": batches}


if __name__ == "__main__":
    main()

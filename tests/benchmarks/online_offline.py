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

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import HEAT, Result, command_line, environment, finish

SCALED = ("simulation.count=40", "reservoir.capacity=800", "training.validation.every=100")
QUICK = (
    "simulation.count=8",
    "reservoir.capacity=200",
    "reservoir.watermark=100",
    "training.draws_per_sample=4",
    "training.validation={simulations: 4, every: 10}",
)
SOURCES = {"disk": "offline, from disk", "memory": "offline, in memory"}
WORKER = "--train"

Curve = list[tuple[float, int, float]]
"""(seconds, batches, validation NRMSE) of each validation."""


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--full", action="store_true", help="the published study, 100 simulations")
    parser.add_argument("--sampler", help="sampler.method of the online run")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument(WORKER, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        train(json.loads(args.train.read_text()))
        return
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
    online = _online(scratch / "online", overrides)
    data = scratch / "data.h5"
    began = time.perf_counter()
    count = ("--simulations", str(study.simulation.count))
    _melissa_gen("generate", str(HEAT), *count, "--output", str(data), *overrides)
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
        found[name] = _offline(scratch / f"{source}.job", job, study.server.ranks, generated)
    return found, generated, data.stat().st_size / 1e6


def _melissa_gen(*arguments: str) -> None:
    command = str(Path(sys.executable).with_name("melissa-gen"))
    subprocess.run([command, *arguments], check=True)


def _online(run_dir: Path, overrides: list[str]) -> dict[str, Any]:
    wall, began = time.time(), time.perf_counter()
    _melissa_gen("run", str(HEAT), "--run-dir", str(run_dir), *overrides)
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


def _offline(path: Path, job: dict[str, Any], ranks: int, generated: float) -> dict[str, Any]:
    path.write_text(json.dumps(job))
    wall, began = time.time(), time.perf_counter()
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, WORKER, str(path)],
            env=os.environ | {"OMP_NUM_THREADS": "1", "RANK": str(rank), "WORLD_SIZE": str(ranks)},
        )
        for rank in range(ranks)
    ]
    codes = [process.wait() for process in processes]
    total = generated + time.perf_counter() - began
    if any(codes):
        sys.exit(f"the training from {job['source']} failed: {codes}")
    found = json.loads(Path(job["output"]).read_text())
    before = generated + found["first_batch"] - wall
    curve: Curve = [(before + seconds, n, error) for seconds, n, error in found["curve"]]
    return {
        "batches": job["batches"],
        "total": total,
        "start": before,
        "curve": curve,
        "batches_per_second": job["batches"] / found["seconds"],
    }


def train(job: dict[str, Any]) -> None:
    """One training process of the offline case: the server's loop, fed by a loader."""
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    from melissa_gen.builders.surrogate import build_surrogate
    from melissa_gen.server.training.validation import Validation, error_summary
    from melissa_gen.study import load_study
    from melissa_gen.surrogates import per_sample_loss

    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    study = load_study(Path(job["study"]), folder=Path(job["folder"]))
    torch.set_num_threads(study.server.threads)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = dist.FileStore(job["store"], ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    device = torch.device("cpu")
    torch.manual_seed(study.seed)
    surrogate = build_surrogate(study)
    validation = Validation(Path(job["validation"]), device, rows=64)
    batches = _loader(Path(job["data"]), job["source"], study.training.batch_size, rank)
    surrogate.set_output_statistics(*_statistics(Path(job["data"]), surrogate))
    network = DistributedDataParallel(surrogate.network, gradient_as_bucket_view=True)
    rate, every = study.training.learning_rate, study.training.halve_every
    optimizer = torch.optim.Adam(surrogate.parameters(), lr=rate, fused=True)
    name = next(iter(surrogate.fields))
    curve = []
    dist.barrier()
    wall, began = time.time(), time.perf_counter()

    def validate(batch: int) -> None:
        error = error_summary(validation.errors(surrogate).total)["mean"]
        curve.append((time.perf_counter() - began, batch, error))

    for batch in range(1, job["batches"] + 1):
        parameters, times, fields = next(batches)
        output = network(surrogate.scale(parameters, times))
        loss = per_sample_loss(output, surrogate.target({name: fields})).mean()
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 ** ((batch - 1) // every) if every else rate
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if batch % study.training.validation.every == 0:
            validate(batch)
    validate(job["batches"])
    seconds = time.perf_counter() - began
    if rank == 0:
        result = {"first_batch": wall, "seconds": seconds, "curve": curve}
        Path(job["output"]).write_text(json.dumps(result))
    dist.barrier()
    batches.close()
    dist.destroy_process_group()


def _statistics(path: Path, surrogate: Any) -> tuple[dict[str, float], dict[str, float]]:
    """Mean and standard deviation of the field over the first simulations."""
    import numpy as np

    from melissa_gen.dataset import Dataset

    name = next(iter(surrogate.fields))
    with Dataset(path) as data:
        values = np.stack([data.read(row)[name] for row in range(min(4, len(data)))])
    return {name: float(values.mean(dtype=float))}, {name: float(values.std(dtype=float))}


def _loader(path: Path, source: str, size: int, rank: int) -> Any:
    """Yields (parameters, times, fields) without end: random samples, drawn without repetition in each pass."""
    import torch
    from torch.utils.data import DataLoader

    samples = _Samples(path)
    generator = torch.Generator().manual_seed(1 + rank)
    if source == "memory":
        samples.load()
        while True:
            order = torch.randperm(len(samples), generator=generator)
            for chosen in order[: len(order) // size * size].split(size):
                yield samples.batch(chosen)
    loader = DataLoader(
        samples,
        batch_size=size,
        shuffle=True,
        drop_last=True,
        num_workers=1,
        persistent_workers=True,
        prefetch_factor=4,
        generator=generator,
    )
    while True:
        yield from loader


class _Samples:
    """Single time steps of a data set, by number."""

    def __init__(self, path: Path) -> None:
        from melissa_gen.dataset import Dataset

        self._path, self._file = path, None
        with Dataset(path) as data:
            self._steps, self._count = data.time_steps, len(data)
            self._parameters, self._times = data.parameters, data.times
            self._name = next(iter(data.fields))

    def __len__(self) -> int:
        return self._count * self._steps

    def __getitem__(self, index: int) -> tuple[Any, Any, Any]:
        from melissa_gen.dataset import Dataset

        if self._file is None:  # in the worker: an open HDF5 file must not be taken through a fork
            self._file = Dataset(self._path)
        row, step = divmod(index, self._steps)
        field = self._file.read(row, slice(step, step + 1))[self._name][0]
        return self._parameters[row], self._times[step], field

    def load(self) -> None:
        """Reads all fields."""
        import numpy as np
        import torch

        from melissa_gen.dataset import Dataset

        with Dataset(self._path) as data:
            fields = np.concatenate([data.read(row)[self._name] for row in range(len(data))])
        self._tensors = (
            torch.from_numpy(np.repeat(self._parameters, self._steps, axis=0)),
            torch.from_numpy(np.tile(self._times, self._count)),
            torch.from_numpy(fields),
        )

    def batch(self, chosen: Any) -> tuple[Any, Any, Any]:
        """Gathers samples from memory."""
        parameters, times, fields = self._tensors
        return parameters[chosen], times[chosen], fields.index_select(0, chosen)


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

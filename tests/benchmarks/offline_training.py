"""The offline half of comparisons with online training: torch DDP processes that train from a data set file.

`offline_run` starts them; `python offline_training.py JOB.json` is one of them.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Curve = list[tuple[float, int, float]]
"""(seconds, batches, validation NRMSE) of each validation."""


def offline_run(
    path: Path, job: dict[str, Any], ranks: int, generated: float, prefix: Sequence[str] = ()
) -> dict[str, Any]:
    """Trains from a data set file; returns batches per second, the validation curve and times in seconds.

    Args:
        path: Where the job is written.
        job: What `train` reads. `batches` is the number of batches; without a `validation` only they are timed.
        ranks: Training processes.
        generated: Seconds that the generation of the file took; all times count from its start.
        prefix: Command that starts each process.
    """
    path.write_text(json.dumps(job))
    wall, began = time.time(), time.perf_counter()
    processes = [
        subprocess.Popen(
            [*prefix, sys.executable, __file__, str(path)],
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
    validation = Validation(Path(job["validation"]), device, rows=64) if job["validation"] else None
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
        if validation is None:
            return
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


if __name__ == "__main__":
    train(json.loads(Path(sys.argv[1]).read_text()))

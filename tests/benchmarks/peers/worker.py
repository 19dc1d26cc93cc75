"""Measures one peer once, in a process of its own, and prints a line of JSON.

    worker.py transport PEER VALUES SECONDS
    worker.py beside PEER SECONDS
    worker.py end_to_end PEER JOB.json

Transport: fields per second that arrive in the other process and are copied into a row of an array. Beside: the batch
rate of a plain training loop while they do (`beside.py`). End to end: a thread copies what arrives into a table, from
which a plain training loop draws.
"""

import importlib
import importlib.util
import json
import multiprocessing
import os
import shutil
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

HERE = Path(__file__).resolve().parent
PEERS = {
    "raw pyzmq": "raw_zmq",
    "shared memory": "shared_ring",
    "mpi4py": "mpi",
    "HDF5, then train": "hdf5",
    "adios2 SST": "sst",
    "Redis": "redis_list",
    "libEnsemble": "libensemble_gen",
    "Ray": "ray_generator",
    "dask": "dask_futures",
}
BYTES_PER_SECOND, FIELDS_PER_SECOND, WARM = 1 << 29, 10_000, 50
"""Sizes of the transport for each second of the measurement; most peers are stopped before."""
CALL_BYTES = 16 << 20
"""Largest size of a simulation's fields in the transport: some peers send all of them at once."""


def missing(peer: str) -> str:
    """Returns which package or program is not installed, or ""."""
    for name in module_of(peer).NEEDS:
        if importlib.util.find_spec(name.replace("-", "_")) is None and not shutil.which(name):
            return f"{name} is not installed"
    return ""


def module_of(peer: str) -> Any:
    """Returns the module of a peer."""
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
    return importlib.import_module(f"streams.{PEERS[peer]}")


def main() -> None:
    task, peer, *rest = sys.argv[1:]
    ranks = getattr(module_of(peer), "RANKS", 1)
    if os.environ.get("PMI_RANK", "0") != "0":
        module_of(peer).solve()
        return
    if problem := missing(peer):
        result: dict[str, Any] = {"missing": problem}
    elif task == "transport":
        result = {"rate": transport(module_of(peer), int(rest[0]), float(rest[1]))}
    elif task == "beside":
        from beside import beside

        result = dict(beside(module_of(peer), float(rest[0])))
    else:
        result = end_to_end(module_of(peer), json.loads(Path(rest[0]).read_text()))
    print("\n" + json.dumps(result), flush=True)
    if ranks == 1:
        leave(0)


def leave(code: int) -> NoReturn:
    """Ends this process at once: some peers leave threads and processes that would be waited for."""
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(code)


def transport(peer: Any, values: int, seconds: float) -> float:
    """Returns the fields per second that a peer brings into another process."""
    from sources import Ready

    steps = max(1, min(100, CALL_BYTES // (4 * values)))
    most = min(BYTES_PER_SECOND / (4 * values), FIELDS_PER_SECOND)
    fields = max(16, int(seconds * most))
    source = Ready(values, steps, -(-fields // steps))
    if hasattr(peer, "rate"):
        return float(peer.rate(source))
    rows = np.ones((max(4, min(2000, (1 << 28) // (4 * values))), values), np.float32)
    warm, total = min(WARM, fields // 4), source.count * source.steps
    stream, began, count = peer.stream(source), 0.0, 0
    for _, _, field in stream:
        rows[count % len(rows)] = field
        count += 1
        if count == warm:
            began = time.perf_counter()
        elif count > warm and time.perf_counter() - began > seconds:
            break
    rate = (count - warm) / (time.perf_counter() - began)
    if count < total:
        stream.close()
    return rate


class Table:
    """All samples that have arrived; a thread appends, the training loop draws."""

    def __init__(self, source: Any, stream: Any) -> None:
        total = source.count * source.steps
        self.fields = np.empty((total, source.values), np.float32)
        self.points = np.array(source.points)
        self.at = np.empty((total, 2), np.int64)
        self.count, self.error = 0, ""
        self._stream = stream
        self.thread = threading.Thread(target=self._fill, daemon=True)
        self.thread.start()

    def _fill(self) -> None:
        try:
            for simulation, step, field in self._stream:
                self.fields[self.count] = field
                self.at[self.count] = simulation, step
                self.count += 1
        except Exception:
            self.error = traceback.format_exc()

    def wait(self, count: int) -> None:
        """Waits until a number of samples has arrived."""
        while self.count < count:
            if self.error or not self.thread.is_alive():
                sys.exit(self.error or "the stream has ended early")
            time.sleep(0.001)


def end_to_end(peer: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Trains the surrogate of a study on what a peer brings; returns validation error and number of batches."""
    from sources import Heat

    source = Heat(tuple(map(tuple, job["points"])), job["mesh"], job["steps"])
    forks = getattr(peer, "FORKS", False)
    table = None if forks else Table(source, peer.stream(source))
    import torch
    import torch.distributed as dist

    from melissa_gen.builders.surrogate import build_surrogate
    from melissa_gen.dataset import Dataset
    from melissa_gen.server.training.validation import Validation, error_summary
    from melissa_gen.study import load_study
    from melissa_gen.surrogates import per_sample_loss, save

    # A process must not be forked while another thread imports.
    table = table or Table(source, peer.stream(source))
    study = load_study(Path(job["study"]), folder=Path(job["folder"]))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    torch.manual_seed(study.seed)
    surrogate = build_surrogate(study)
    name, spec = next(iter(study.simulation.fields.items()))
    random = np.random.default_rng(study.seed)
    table.wait(job["watermark"])
    first = table.fields[: job["watermark"]]
    surrogate.set_output_statistics({name: float(first.mean())}, {name: float(first.std())})
    with Dataset(Path(job["validation"])) as data:
        times = np.asarray(data.times)
    optimizer = torch.optim.Adam(
        surrogate.parameters(), lr=study.training.learning_rate, fused=True
    )
    for _ in range(job["batches"]):
        rows = random.integers(table.count, size=study.training.batch_size)
        fields = torch.from_numpy(table.fields[rows].reshape(-1, *spec.shape))
        simulations, steps = table.at[rows].T
        inputs = torch.from_numpy(table.points[simulations]), torch.from_numpy(times[steps])
        output = surrogate.network(surrogate.scale(*inputs))
        loss = per_sample_loss(output, surrogate.target({name: fields})).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    table.wait(len(table.fields))
    validation = Validation(Path(job["validation"]), torch.device("cpu"), rows=64)
    error = error_summary(validation.errors(surrogate).total)["mean"]
    save(surrogate, job["model"])
    return {"error": error, "batches": job["batches"]}


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        leave(1)

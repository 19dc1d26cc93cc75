"""The trainer's batch rate while samples arrive, against its rate while none do.

One server rank of the real parts: the trainer (published MLP, 6 -> 256 -> 256 -> 10,000, one torch thread) draws from
a full reservoir, its ingest process receives 40 KB fields into it. A client in another process sends
  idle       nothing
  1,000/s    1,000 time steps a second
  as drawn   as many as it gets credit for: the trainer has seen what makes room for them, so it sets the pace
  saturated  as many as go through: the reservoir gives up samples that were never seen, as it never does in a study
With `--sinks`, it sends at `--rate`, and in every other window the samples also go into a data set file and into
statistics, as in a study with `record` and `statistics`. All take turns within one process, in short windows, so that a
ratio compares neighbors. A small network (`--hidden 16 --batch-size 8`) has steps as short as those of a GPU.

Pinned: the trainer has core 0 to itself; the ingest process and the client share core 1. Unpinned: the
scheduler places all of them on the same two cores, so that the client's share of a core is taken from the trainer too.
The table tells these shares apart: cores used by the trainer's process, the ingest process and the client. With
`--device cuda` the network is on the GPU, and its thread on the core feeds it.

The CPU time of the trainer for each batch is measured too. It depends less on what else the machine does than the
batch rate.
"""

import argparse
import math
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
from loopback import FIELD, PARAMETERS, ControlStandIn, new_contact, stream, word_from
from measure import Result, Target, command_line, environment, finish, ratio

from melissa_gen.builders.memory import allocator
from melissa_gen.server.collectives import SingleRank
from melissa_gen.study import Study
from melissa_gen.study.flow import default_flow

SHAPE = (100, 100)
CAPACITY = 2000
FLOW = default_flow(4 * SHAPE[0] * SHAPE[1])
RATE = 1000.0
MODES = ("idle", "1,000/s", "as drawn", "saturated")
SINK_MODES = ("training alone", "all sinks")
"""Modes with `--sinks`; the client sends at the same rate in both."""
SPAWN = multiprocessing.get_context("spawn")


@dataclass
class Window:
    """Rates in one time window."""

    batches: float
    samples: float
    trainer_cores: float
    ingest_cores: float
    client_cores: float

    @property
    def cost(self) -> float:
        """CPU seconds of the trainer for each batch."""
        return self.trainer_cores / self.batches


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 256])
    parser.add_argument("--repetitions", type=int)
    parser.add_argument("--sinks", action="store_true", help="compare with record and statistics")
    parser.add_argument("--rate", type=float, default=RATE, help="time steps a second (1,000/s)")
    parser.add_argument("--device", default="cpu", help="where the network is: cpu or cuda")
    args = parser.parse_args()
    os.environ.update(allocator(over_tcp=False))  # as the launcher starts a server
    env = environment()
    result = Result(
        f"Batches per second of the trainer ({args.device}) beside ingest of 40 KB fields",
        (
            "cores",
            "ingest",
            "batches/s",
            "samples/s in",
            "trainer cores",
            "ingest cores",
            "client cores",
            "batch rate / first",
            "CPU per batch / first",
        ),
    )
    cores = sorted(os.sched_getaffinity(0))[:2]
    placements = {"pinned": True, "unpinned": False} if len(cores) == 2 else {"unpinned": False}
    if len(cores) < 2:
        result.notes.append("pinned needs two cores: left out")
    for placement, pinned in placements.items():
        found = _measure(args, cores, pinned)
        first = next(iter(found.values()))
        for mode, windows in found.items():
            middle = [
                statistics.median(getattr(w, key) for w in windows)
                for key in Window.__dataclass_fields__
            ]
            share = ratio([w.batches for w in windows], [w.batches for w in first])
            cost = ratio([w.cost for w in windows], [w.cost for w in first])
            result.rows.append((placement, mode, *middle, share, cost))
            if mode == "all sinks":
                result.targets.append(Target(f"batch rate, {placement}, {mode}", 0.97, share))
            if pinned and mode in ("1,000/s", "saturated"):
                wanted = 0.95 if mode == "1,000/s" else 0.85
                result.targets.append(Target(f"batch rate, {placement}, {mode}", wanted, share))
        result.details[placement] = {m: [vars(w) for w in ws] for m, ws in found.items()}
    finish(result, env, args, "trainer_beside_ingest")


def _measure(args: argparse.Namespace, cores: list[int], pinned: bool) -> dict[str, list[Window]]:
    repetitions = args.repetitions or (3 if args.quick else 11)
    settle, window = (0.3, 0.7) if args.quick else (0.7, 2.5)
    os.sched_setaffinity(0, {cores[-1]} if pinned else set(cores))
    control = ControlStandIn(new_contact("ipc"), SHAPE, FLOW)
    mode = SPAWN.Value("i", 0)
    with tempfile.TemporaryDirectory() as folder:
        here, there = SPAWN.Pipe()
        rank = SPAWN.Process(
            target=_rank,
            args=(there, control.contact.to_json(), cores, pinned, args),
            daemon=True,
        )
        rank.start()
        there.close()  # the end of the process then ends a wait for its word
        contact_file = Path(folder) / "contact.json"
        contact_file.touch(0o600)
        contact_file.write_text(word_from(here, rank))
        client = SPAWN.Process(
            target=_client,
            args=(contact_file, cores[-1] if pinned else None, mode, args.rate),
            daemon=True,
        )
        client.start()
        word_from(here, rank, client)  # training
        # For each case: what the client does, whether unseen samples are given up, and whether the sinks take part.
        cases = {name: (k, name in ("1,000/s", "saturated"), False) for k, name in enumerate(MODES)}
        if args.sinks:
            cases = {name: (1, True, name == "all sinks") for name in SINK_MODES}
        found: dict[str, list[Window]] = {name: [] for name in cases}
        for turn in range(repetitions):
            for name in list(cases)[:: -1 if turn % 2 else 1]:
                mode.value, *switches = cases[name]
                here.send((settle, window, client.pid, *switches))
                found[name].append(word_from(here, rank, client))
        control.end_clients()
        mode.value = len(MODES) - 1
        client.join(timeout=20)
        here.send(None)
        rank.join(timeout=20)
        for process in (client, rank):
            process.kill()
    control.close()
    shutil.rmtree(control.contact.runtime_folder, ignore_errors=True)
    os.sched_setaffinity(0, set(cores))
    return found


def _client(contact_file: Path, core: int | None, mode: Any, rate: float) -> None:
    """Sends samples at the rate of `mode`."""
    due = 0.0

    def pause() -> bool:
        nonlocal due
        first = not due
        while mode.value == 0 and not first:
            time.sleep(0.005)
        now = time.perf_counter()
        if mode.value == 1:
            due = max(due + 1 / rate, now - 0.05)
            time.sleep(max(0.0, due - now))
        else:
            due = now
        return True

    stream(contact_file, SHAPE, core, pause)


def _rank(
    pipe: Connection,
    contact: str,
    cores: list[int],
    pinned: bool,
    args: argparse.Namespace,
) -> None:
    from melissa_gen.protocol.contact import Contact
    from melissa_gen.run_dir.folder import record_run
    from melissa_gen.server.child_process import start_with_memory
    from melissa_gen.server.ingest.ingest_process import IngestProcess
    from melissa_gen.server.setup import RankSetup
    from melissa_gen.server.training.torch_settings import configure_torch

    configure_torch(study_of(args))
    secrets = Contact.from_json(contact)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder)
        record_run(study_of(args), run_dir)
        if args.sinks:
            (run_dir / "sinks").mkdir()
        started = start_with_memory("open_ingest", "server ingest", run_dir)
        setup = replace(
            RankSetup.read(run_dir, 0, 1), ingest_cores={cores[1]} if pinned else set(cores)
        )
        process = IngestProcess(started, setup, list)
        bound = process.bind(secrets)
        complete = replace(secrets, data=(bound["endpoint"],), machines=(bound["machine"],))
        process.open(complete, None, lambda value: value)
        process.ask("fill")
        if pinned:
            os.sched_setaffinity(0, {cores[0]})
        _train(pipe, process, complete, setup.study, args.device, started.process.pid)


def _train(
    pipe: Connection, process: Any, contact: Any, study: Study, device: str, ingest: int
) -> None:
    """Trains beside ingest until the last window has been measured."""
    import torch
    import torch.distributed as dist

    from melissa_gen.builders.surrogate import build_surrogate
    from melissa_gen.server.consumer import Hooks
    from melissa_gen.server.training.trainer import Trainer
    from melissa_gen.tasks import Direct

    store = dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=30))
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    watcher = _Watcher(pipe, process, ingest)
    trainer = Trainer(
        study,
        Direct(),
        build_surrogate(study),
        process.reservoir,
        process.shared,
        None,
        torch.device(device),
        Hooks(lambda *a, **k: None, lambda reason: None, lambda: None),
        watcher.between_steps,
    )
    pipe.send(contact.to_json())
    trainer.run()
    process.close()
    process.finish(SingleRank(), complete=False)
    process.end()
    dist.destroy_process_group()


def study_of(args: argparse.Namespace) -> Study:
    """A study of one server rank with the options of the command line."""
    return Study.model_validate(
        {
            "name": "benchmark",
            "parameters": {
                name: {"distribution": "uniform", "low": 0, "high": 1} for name in PARAMETERS
            },
            "simulation": {
                "command": ["none"],
                "count": 100_000,
                "time_steps": 2000,
                "fields": {FIELD: {"shape": list(SHAPE)}},
            },
            "surrogate": {"arguments": {"hidden": args.hidden}},
            "training": {"batch_size": args.batch_size, "checkpoint_every": 1e9},
            "reservoir": {"capacity": CAPACITY, "watermark": args.batch_size},
        }
    )


class _Watcher:
    """Counts batches and samples in each window, between two steps of the trainer.

    Args:
        pipe: The connection to the benchmark.
        process: The ingest process.
        ingest: Its process id.
    """

    def __init__(self, pipe: Connection, process: Any, ingest: int) -> None:
        self._pipe, self._process = pipe, process
        self._us, self._ingest = psutil.Process(), psutil.Process(ingest)
        self._client: psutil.Process | None = None
        self._warm = False
        self._begins = self._ends = math.inf
        self._before: list[float] = []

    def between_steps(self, surrogate: Any, batches: int) -> None:
        """Takes the next order, begins its window, or ends it."""
        now = time.perf_counter()
        if not self._warm and batches >= 50:
            self._warm = True
            self._pipe.send("training")
        if self._warm and self._begins == math.inf and self._pipe.poll():
            self._take(self._pipe.recv(), now)
        elif not self._before and now >= self._begins:
            self._before = self._counts(batches)
            self._ends = now + self._window
        elif now >= self._ends:
            after = self._counts(batches)
            seconds, *rates = (b - a for a, b in zip(self._before, after, strict=True))
            self._before, self._begins, self._ends = [], math.inf, math.inf
            self._pipe.send(Window(*(value / seconds for value in rates)))

    def _take(self, order: Any, now: float) -> None:
        if order is None:
            self._process.shared.stop_reason = "the measurement is over"
            return
        settle, self._window, pid, overwrite, sinks = order
        self._process.ask("switch", overwrite=overwrite, sinks=sinks)
        self._client = psutil.Process(pid)
        self._begins = now + settle

    def _counts(self, batches: int) -> list[float]:
        assert self._client is not None
        used = [sum(process.cpu_times()[:2]) for process in (self._us, self._ingest, self._client)]
        return [time.perf_counter(), batches, self._process.counters()["stored"], *used]


if __name__ == "__main__":
    main()

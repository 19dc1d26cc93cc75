"""CPU time of a step of the trainer, relative to a plain loop over data in memory with the same network and batches.

One server rank without ingest: `Trainer.run` draws from a full reservoir of 40 KB fields (published MLP, 6 -> 256 ->
256 -> 10,000, batches of 32, one thread). After every few steps, the same thread runs as many steps of a loop of a few
lines: it gathers random rows of an array, scales them, and takes a step of the same optimizer. CPU time of the thread
is counted, so that the ratio means something on a busy machine, too.
"""

import argparse
import itertools
import statistics
import time
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from loopback import FIELD, PARAMETERS
from measure import Result, Target, command_line, environment, finish, ratio
from trainer_beside_ingest import CAPACITY, SHAPE, study_of

from melissa_gen.server.training.torch_settings import configure_torch

WANTED = 1.05
STEPS = 40


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 256])
    parser.add_argument("--repetitions", type=int, default=25)
    parser.add_argument(
        "--keep-tiny-numbers", action="store_true", help="compute with numbers below 1.2e-38"
    )
    args = parser.parse_args()
    env = environment()
    configure_torch(study_of(args))
    torch.set_flush_denormal(not args.keep_tiny_numbers)
    found = measured(args, 5 if args.quick else args.repetitions)
    result = Result(
        "CPU milliseconds of a training step", ("loop", "median", "median / plain loop")
    )
    for name, seconds in found.items():
        share = ratio(seconds, found["plain loop"])
        result.rows.append((name, 1000 * statistics.median(seconds), share))
    share = ratio(found["trainer"], found["plain loop"])
    result.targets.append(Target("trainer / plain loop", WANTED, share, at_least=False))
    result.details |= found
    finish(result, env, args, "trainer_step")


def measured(args: argparse.Namespace, repetitions: int) -> dict[str, list[float]]:
    """Returns the CPU seconds of a step in each window, of the trainer and of the plain loop in turn."""
    from melissa_gen.builders.surrogate import build_surrogate
    from melissa_gen.server.consumer import Hooks
    from melissa_gen.server.rank_state import RankState
    from melissa_gen.server.training.trainer import Trainer
    from melissa_gen.server.training.training_reservoir import training_reservoir
    from melissa_gen.tasks import Direct

    study = study_of(args)
    reservoir = training_reservoir(study, 0, 1, None, resume=True)
    fill(reservoir)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=30))
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    state, plain = RankState(), PlainLoop(args)
    found: dict[str, list[float]] = {"plain loop": [], "trainer": []}
    began = 0.0

    def between(surrogate: Any, batches: int) -> None:
        nonlocal began
        if batches % STEPS:
            return
        # The first windows allocate memory.
        warm = batches > 3 * STEPS
        if warm:
            found["trainer"].append((time.thread_time() - began) / STEPS)
        started = time.thread_time()
        for _ in range(STEPS):
            plain.step()
        if warm:
            found["plain loop"].append((time.thread_time() - started) / STEPS)
        if len(found["trainer"]) == repetitions:
            state.stop_reason = "the measurement is over"
        began = time.thread_time()

    hooks = Hooks(lambda *a, **k: None, lambda reason: None, lambda: None)
    device = torch.device("cpu")
    surrogate = build_surrogate(study)
    Trainer(study, Direct(), surrogate, reservoir, state, None, device, hooks, between).run()
    dist.destroy_process_group()
    return found


def fill(reservoir: Any) -> None:
    """Fills the reservoir, so that the trainer does not wait for samples."""
    from melissa_gen.reservoir import Sample

    random, store = np.random.default_rng(0), reservoir.store
    for step in range(CAPACITY):
        slot = store.acquire()
        store.row(slot, FIELD)[...] = random.standard_normal(SHAPE, np.float32)
        reservoir.put(slot, Sample(0, step, [*random.random(len(PARAMETERS)), step]))


class PlainLoop:
    """A training loop on rows in memory, without anything around it."""

    def __init__(self, args: argparse.Namespace) -> None:
        sizes = [6, *args.hidden]
        layers: list[torch.nn.Module] = []
        for one, two in itertools.pairwise(sizes):
            layers += [torch.nn.Linear(one, two), torch.nn.ReLU()]
        self._network = torch.nn.Sequential(
            *layers, torch.nn.Linear(sizes[-1], SHAPE[0] * SHAPE[1])
        )
        self._optimizer = torch.optim.Adam(self._network.parameters())
        self._inputs = torch.rand(CAPACITY, 6)
        self._fields = torch.randn(CAPACITY, SHAPE[0] * SHAPE[1])
        self._size = args.batch_size

    def step(self) -> None:
        """Trains on one batch."""
        rows = torch.randint(CAPACITY, (self._size,))
        target = (self._fields[rows] - 0.1) / 2.0
        self._optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.mse_loss(self._network(self._inputs[rows]), target)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()


if __name__ == "__main__":
    main()

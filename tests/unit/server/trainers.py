"""A trainer in process with a full reservoir, for tests on the CPU and on a GPU."""

import os
import time
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from melissa_gen import reservoir
from melissa_gen.builders.fields import field_specs, input_specs
from melissa_gen.builders.surrogate import build_surrogate
from melissa_gen.builders.task import build_task
from melissa_gen.server.consumer import Hooks
from melissa_gen.server.rank_state import RankState
from melissa_gen.server.training.trainer import Trainer
from melissa_gen.study import Study

GROUP_SECONDS = 120.0


class Done:
    """A request that is complete."""

    def Test(self):
        return True


class OneRank:
    """A communicator of one rank."""

    def Get_rank(self):
        return 0

    def Get_size(self):
        return 1

    def Ibarrier(self):
        return Done()

    def Allgather(self, mine, all_ranks):
        all_ranks[0] = mine


@pytest.fixture(autouse=True, scope="module")
def world():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(autouse=True)
def generator():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        yield


def study_of(**sections):
    given = {
        "name": "small",
        "parameters": {"a": {"distribution": "uniform", "low": 0.0, "high": 1.0}},
        "simulation": {
            "command": ["true"],
            "count": 12,
            "time_steps": 4,
            "fields": {"u": {"shape": [6]}},
        },
        "training": {"batch_size": 8, "validation": {"simulations": 0}},
        "reservoir": {"capacity": 48, "watermark": 8},
    }
    for section, keys in sections.items():
        given[section] = {**given.get(section, {}), **keys}
    return Study.model_validate(given)


def trainer_of(study, weight=lambda simulation: 1.0, device="cpu", failures=None, validation=None):
    """A trainer whose reservoir holds all 48 samples; `failures` collects the reasons to stop."""
    count, steps = study.simulation.count, study.simulation.time_steps
    inputs = input_specs(study.simulation)
    store = reservoir.SlotStore(
        field_specs(study.simulation), count * steps + 1, 2, input_specs=inputs
    )
    rows = study.reservoir
    memory = reservoir.create(
        rows.policy, store, rows.capacity, rows.watermark, 0, rows.eviction, rows.draws
    )
    task = build_task(study)
    if task.window.span > 1:
        memory.form_windows(reservoir.WindowShape(task.window.steps, task.window.stride), steps, 2)
    state = RankState()
    for simulation in range(count):
        a = simulation / count
        given = {
            name: np.full(shape, 5.0 + 3.0 * a, kind) for name, (shape, kind) in inputs.items()
        }
        for step in range(steps):
            slot = store.acquire()
            row = store.row(slot, "u")
            row[:] = np.sin(6.0 * a * np.arange(len(row)) + step) * (1.0 + 3.0 * a)
            sample = reservoir.Sample(
                simulation, step, [a, step], weight(simulation), input_fields=given
            )
            memory.put(slot, sample)
    memory.close()
    nothing = lambda *args, **more: None  # noqa: E731
    fail = nothing if failures is None else failures.append
    stop = lambda reason: setattr(state, "stop_reason", reason)  # noqa: E731
    hooks = Hooks(nothing, fail, nothing, reached=stop)
    surrogate = build_surrogate(study)
    device = torch.device(device)
    parts = (study, task, surrogate, memory, state, validation, device, hooks, nothing)
    return Trainer(*parts), state


def run_on_two_ranks(function, folder):
    """Calls `function(rank, folder)` in two processes with a process group, which end with this one."""
    context = mp.spawn(_rank, (function, str(folder)), nprocs=2, join=False, daemon=True)
    until = time.monotonic() + GROUP_SECONDS
    try:
        # The processes end one after the other.
        while not context.join(timeout=GROUP_SECONDS):
            assert time.monotonic() < until, "two ranks hang"
    finally:
        for process in context.processes:
            process.kill()


def _rank(rank, function, folder):
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store, limit = dist.FileStore(f"{folder}/store", 2), timedelta(seconds=GROUP_SECONDS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=limit)
    function(rank, folder)
    dist.destroy_process_group()

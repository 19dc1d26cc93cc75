"""A training whose samples arrive at any time is repeated bit for bit from its record and the order of its batches."""

import contextlib
import threading

import numpy as np
import pytest
import torch
import torch.distributed as dist

from melissa_gen import reservoir
from melissa_gen.builders.fields import field_specs, input_specs
from melissa_gen.builders.surrogate import build_surrogate
from melissa_gen.builders.task import build_task
from melissa_gen.dataset import DatasetWriter
from melissa_gen.errors import DataError
from melissa_gen.reservoir.batch_order import OrderRecorder, read_order
from melissa_gen.server.consumer import Hooks
from melissa_gen.server.rank_state import RankState
from melissa_gen.server.training.replay import replay
from melissa_gen.server.training.torch_settings import configure_torch
from melissa_gen.server.training.trainer import Trainer
from tests.unit.server.trainers import study_of

pytestmark = pytest.mark.usefixtures("torch_settings")
COUNT, STEPS = 12, 4
INPUTS = {"inputs": {"k": {"shape": [3]}}}


def field(simulation, step):
    # The scale grows, so that it is adapted in the middle of the training.
    return (np.sin(simulation * np.arange(6) + step) * 1.5**simulation).astype(np.float32)


def feed(memory, record):
    """Stores and records the samples as fast as the trainer makes room."""
    specs = memory.store.input_specs
    with (
        contextlib.closing(memory),
        DatasetWriter(record, {"u": ((6,), "f4")}, STEPS, ["a"], COUNT, {}, inputs=specs) as writer,
    ):
        for simulation in range(COUNT):
            a = simulation / COUNT
            given = {name: np.full(shape, 1.0 + a, kind) for name, (shape, kind) in specs.items()}
            writer.begin(simulation, simulation, [a], given)
            for step in range(STEPS):
                slot = memory.store.acquire()
                memory.store.row(slot, "u")[:] = field(simulation, step)
                writer.write(simulation, step, "u", field(simulation, step))
                sample = reservoir.Sample(simulation, step, (a, step), 1.0 + a, input_fields=given)
                while not memory.put(slot, sample):
                    memory.wait_room()
            if simulation != 3:  # one that never completed was trained on, too
                writer.finish(simulation)


def trained(study, memory, order):
    """Trains while another thread stores samples; returns the surrogate."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        configure_torch(study)
        torch.manual_seed(study.seed)
        task = build_task(study)
        surrogate = build_surrogate(study, task)
        torch.manual_seed(study.seed + 1)
        nothing = lambda *args, **more: None  # noqa: E731
        hooks = Hooks(nothing, nothing, nothing, lambda: False)
        source = OrderRecorder(memory, order)
        parts = (study, task, surrogate, source, RankState(), None, torch.device("cpu"))
        trainer = Trainer(*parts, hooks, nothing)
        trainer.run()
        source.close_order()
        return trainer
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    "sections",
    [
        {"reservoir": {"capacity": 16, "watermark": 8}},
        {"reservoir": {"capacity": 16, "watermark": 8, "draws": "difficulty"}},
        {"reservoir": {"policy": "firo", "capacity": 16, "watermark": 8}},
        {"training": {"batch_size": 8, "ema": 0.9, "validation": {"simulations": 0}}},
        {"surrogate": {"task": {"class": "autoregressive", "arguments": {"noise": 0.1}}}},
        {
            "surrogate": {
                "task": {
                    "class": "autoregressive",
                    "arguments": {"history": 2, "rollout": 2, "predicts": "increment"},
                }
            },
            "reservoir": {"capacity": 16, "watermark": 8, "draws": "difficulty"},
        },
        {"surrogate": {"task": "autoregressive"}, "simulation": INPUTS},
        {"surrogate": {"task": "operator"}, "simulation": INPUTS},
        {
            "surrogate": {"task": {"class": "operator", "arguments": {"predicts": "trajectory"}}},
            "simulation": INPUTS,
        },
        {"surrogate": {"task": "pointwise"}},
        {
            "surrogate": {
                "task": {
                    "class": "physics_informed",
                    "arguments": {
                        "residual": {"function": "heat", "arguments": {"diffusivity": 0.1}},
                        "collocation": "rad",
                        "points": 20,
                    },
                },
                "arguments": {"activation": "tanh"},
            }
        },
    ],
)
def test_losses_and_weights_are_identical(tmp_path, sections):
    threads = torch.get_num_threads()
    study = study_of(**sections)
    # Sums are rounded otherwise with another number of threads.
    torch.set_num_threads(study.server.threads)
    section = study.reservoir
    # Samples that are being copied into a batch, or measured, still occupy their slots.
    slots = section.capacity + 2 * study.training.batch_size + 2 * STEPS
    store = reservoir.SlotStore(
        field_specs(study.simulation), slots, 2, input_specs=input_specs(study.simulation)
    )
    memory = reservoir.create(
        section.policy, store, section.capacity, section.watermark, 3, draws=section.draws
    )
    window = build_task(study).window
    if window.span > 1:
        memory.form_windows(reservoir.WindowShape(window.steps, window.stride), STEPS, 2)
    record, order = tmp_path / "record.h5", tmp_path / "batches.bin"
    feeder = threading.Thread(target=feed, args=(memory, record), daemon=True)
    feeder.start()
    with torch.random.fork_rng():
        trainer = trained(study, memory, order)
        feeder.join()
        found = replay(study, record, order, None)
    torch.set_num_threads(threads)
    turns = [turn for turn in read_order(order) if turn.drawn is not None]
    assert len(found.losses) == len(turns) == trainer.batches
    np.testing.assert_array_equal(found.losses[:, 0], found.losses[:, 1])
    weights = found.surrogate.state_dict()
    assert all(
        torch.equal(value, weights[name]) for name, value in trainer.model.state_dict().items()
    )


def test_an_order_that_was_cut_off_ends_before_the_cut(tmp_path):
    store = reservoir.SlotStore({"u": ((2,), "f4")}, 4, 1)
    memory = reservoir.create("fifo", store, 3)
    order = OrderRecorder(memory, tmp_path / "order")
    for simulation in range(2):
        memory.put(store.acquire(), reservoir.Sample(simulation, 7, [0.5]))
        order.take_arrivals()
    order.draw(1, {"u": np.zeros((1, 2), np.float32)})
    order.close_order()
    whole = (tmp_path / "order").read_bytes()
    turns = list(read_order(tmp_path / "order"))
    assert [turn.arrived.tolist() for turn in turns] == [[[0, 7]], [[1, 7]]]
    assert turns[1].drawn.tolist() == [[0, 7]] and turns[1].loss is None
    (tmp_path / "order").write_bytes(whole[:-1])
    assert [turn.drawn for turn in read_order(tmp_path / "order")] == [None, None]
    (tmp_path / "order").write_bytes(b"not an order of batches")
    with pytest.raises(DataError, match="damaged"):
        list(read_order(tmp_path / "order"))

"""The scale of the fields follows the stream: a fluid at rest that then moves."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from melissa_gen import reservoir
from melissa_gen.builders.fields import field_specs, input_specs
from melissa_gen.builders.surrogate import build_surrogate
from melissa_gen.builders.task import build_task
from melissa_gen.errors import RunError
from melissa_gen.server.consumer import Hooks
from melissa_gen.server.ingest.assignment import Assignment
from melissa_gen.server.rank_state import RankState
from melissa_gen.server.training.scaling import Scaling, rescale_moments
from melissa_gen.server.training.trainer import Trainer
from melissa_gen.surrogates import Surrogate
from tests.unit.server.trainers import generator, run_on_two_ranks, study_of, trainer_of, world

__all__ = ["generator", "world"]

STEPS = 8
REST = 3


def late(a, step):
    """At rest, up to rounding, in the first simulations, whose parameter is small."""
    return (1e-7 if a < 0.5 else 1.0) * (1.0 + np.sin(3.0 * a * np.arange(6) + step))


def flow(a, step):
    """At rest, up to rounding, in the first time steps."""
    amplitude = 1e-7 if step < REST else 1.0
    return amplitude * (1.0 + np.sin(3.0 * a * np.arange(6) + step))


def trainer_on_a_stream(value=flow, simulations=40, size=float, **sections):
    """A trainer that receives step after step of all simulations: the motion begins after the training.

    If items are windows of time steps, it receives simulation after simulation. The values of input fields are
    `size(a)`.
    """
    study = study_of(
        simulation={
            "count": simulations,
            "time_steps": STEPS,
            "fields": sections.pop("fields", {"u": {"shape": [6]}}),
            "inputs": sections.pop("inputs", {}),
        },
        reservoir={"capacity": 600, "watermark": simulations},
        **sections,
    )
    inputs = input_specs(study.simulation)
    store = reservoir.SlotStore(field_specs(study.simulation), 601, 2, input_specs=inputs)
    rows = study.reservoir
    memory = reservoir.create(rows.policy, store, rows.capacity, rows.watermark, 0)
    task = build_task(study)
    if task.window.span > 1:
        memory.form_windows(reservoir.WindowShape(task.window.steps, task.window.stride), STEPS, 2)
    state, events = RankState(), []
    samples = ((n, step) for step in range(STEPS) for n in range(simulations))
    if task.window.span > 1:
        samples = ((n, step) for n in range(simulations) for step in range(STEPS))

    def receive(count):
        for _ in range(count):
            n, step = next(samples, (None, None))
            if n is None:
                memory.close()
                return
            slot, a = store.acquire(), n / simulations
            given = {name: np.full(3, size(a), np.float32) for name in study.simulation.inputs}
            state.assignments[n] = Assignment((a,), 1.0)
            store.row(slot, "u")[:] = value(a, step)
            memory.put(slot, reservoir.Sample(n, step, [a, step], input_fields=given))

    receive(simulations)
    hooks = Hooks(
        event=lambda event, **fields: events.append({"event": event, **fields}),
        fail=lambda reason: None,
        checkpoint=lambda: None,
    )
    surrogate = build_surrogate(study, task)
    parts = (study, task, surrogate, memory, state, None, torch.device("cpu"), hooks)
    trainer = Trainer(*parts, lambda *_: receive(2))
    return trainer, events


def error(surrogate):
    found = [
        surrogate.predict({"a": a}, float(step))["u"] - flow(a, step)
        for a in np.linspace(0, 0.9, 10)
        for step in range(STEPS)
    ]
    return float(np.sqrt(np.mean(np.square(found))))


@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_a_fluid_at_rest_that_then_moves_is_learned(optimizer):
    training = {"batch_size": 8, "learning_rate": 0.01, "optimizer": optimizer}
    trainer, events = trainer_on_a_stream(training=training)
    losses = []
    learn = trainer.learn
    trainer.learn = lambda *of: losses.append(learn(*of)) or losses[-1]
    assert trainer.run() is None
    # No batch is trained on a scale that does not fit it.
    assert max(float(one.max()) for one in losses) < 100.0
    assert error(trainer.surrogate) < 0.8, "predicting zero has an error of 1"
    rescaled = [one for one in events if one["event"] == "rescaled"]
    assert 1 <= len(rescaled) < 30 and all(one["in_last_layer"] for one in rescaled)
    assert rescaled[0]["fields"]["u"]["previous_width"][0] < 1e-6
    assert rescaled[-1]["fields"]["u"]["width"][0] > 0.3
    json.dumps(rescaled)


@pytest.mark.parametrize("predicts", ["field", "increment"])
def test_given_fields_at_rest_that_then_move_are_learned(predicts):
    """On their first scale, the given fields would be ten million times as large as those of the first batches."""
    task = {"class": "autoregressive", "arguments": {"predicts": predicts}}
    training = {"batch_size": 8, "learning_rate": 0.01}
    trainer, events = trainer_on_a_stream(late, surrogate={"task": task}, training=training)
    losses = []
    learn = trainer.learn
    trainer.learn = lambda *of: losses.append(learn(*of)) or losses[-1]
    assert trainer.run() is None
    assert "rescaled" in [one["event"] for one in events]
    assert max(float(one.max()) for one in losses) < 1000.0
    found = trainer.surrogate.predict({"a": 0.7}, {"u": late(0.7, 3)}, 1)["u"][0]
    assert np.abs(found - late(0.7, 4)).mean() < 0.8, "predicting zero has an error of 1"


def rare(a):
    """The value of an input field: small in the first simulations, whose parameter is small."""
    return (1e-7 if a < 0.5 else 1.0) * (1.0 + a)


@pytest.mark.parametrize("ema", [None, 0.9])
def test_the_scale_of_input_fields_follows_the_stream_and_continues_after_a_checkpoint(ema):
    sections = {
        "inputs": {"k": {"shape": [3]}},
        "surrogate": {"task": "autoregressive"},
        "training": {"batch_size": 8, "learning_rate": 0.01, "ema": ema},
    }
    trainer, events = trainer_on_a_stream(late, size=rare, **sections)
    losses = []
    learn = trainer.learn
    trainer.learn = lambda *of: losses.append(learn(*of)) or losses[-1]
    assert trainer.run() is None
    assert max(float(one.max()) for one in losses) < 1000.0
    changes = [one["fields"]["k"] for one in events if "k" in one.get("fields", {})]
    assert changes[0]["previous_width"][0] < 1e-6 and changes[-1]["width"][0] > 0.1
    values = np.array([rare(n / 40) for n in range(40)])
    reach = np.hypot(values.std(), values.mean() - changes[-1]["mean"][0]) / changes[-1]["width"][0]
    assert 0.5 <= reach <= 2.0
    assert trainer.model.field_std.tolist() == changes[-1]["width"]
    state = json.loads(json.dumps(trainer.state()))
    again, _ = trainer_on_a_stream(late, size=rare, **sections)
    again.surrogate.load_state_dict(trainer.surrogate.state_dict())
    again.restore(state)
    assert again.state()["scaling"] == state["scaling"]


def test_a_constant_input_field_keeps_its_scale():
    sections = {"inputs": {"k": {"shape": [3]}}, "surrogate": {"task": "operator"}}
    trainer, events = trainer_on_a_stream(
        lambda a, step: flow(a, 5), size=lambda a: 7.0, **sections
    )
    assert trainer.run() is None
    assert [one["event"] for one in events] == ["training_started"]
    assert (trainer.surrogate.field_mean.item(), trainer.surrogate.field_std.item()) == (7.0, 1.0)


def test_the_losses_in_memory_are_converted_when_the_scale_changes():
    trainer, events = trainer_on_a_stream(training={"batch_size": 8})
    factors = []
    trainer.reservoir.rescale_losses = factors.append
    trainer.run()
    fields = [one["fields"]["u"] for one in events if one["event"] == "rescaled"]
    wanted = [(one["previous_width"][0] / one["width"][0]) ** 2 for one in fields]
    assert wanted
    np.testing.assert_allclose(factors, wanted, rtol=1e-4)


def test_a_field_that_keeps_its_size_keeps_its_first_scale():
    trainer, events = trainer_on_a_stream(lambda a, step: np.sin(6 * a * np.arange(6) + step))
    trainer.run()
    assert [one["event"] for one in events] == ["training_started"]


@pytest.mark.parametrize(
    ("scale", "center", "width"),
    [("none", 0.0, 1.0), ({"mean": 5.0, "std": 2.0}, 5.0, 2.0)],
)
def test_a_fixed_scale_does_not_change(scale, center, width):
    trainer, events = trainer_on_a_stream(fields={"u": {"shape": [6], "scale": scale}})
    trainer.run()
    assert not [one for one in events if one["event"] == "rescaled"]
    assert trainer.surrogate.output_mean.item() == center
    assert trainer.surrogate.output_std.item() == width


def test_a_log_scale_refuses_values_that_have_no_logarithm():
    fields = {"u": {"shape": [6], "scale": "log"}}
    trainer, _ = trainer_on_a_stream(fields=fields)
    trainer.run()
    trainer, _ = trainer_on_a_stream(lambda a, step: flow(a, step) - 0.5, fields=fields)
    with pytest.raises(
        RunError, match=r"fields\.u\.scale is log, but the field has the value -0\.5"
    ):
        trainer.run()


@pytest.mark.parametrize("scale", ["standard", "log", "none"])
def test_the_ranges_of_the_fields_in_the_training_are_known(scale):
    fields = {"u": {"shape": [6], "scale": scale}}
    trainer, _ = trainer_on_a_stream(lambda a, step: flow(a, step) + 1.0, fields=fields)
    trainer.run()
    values = [flow(n / 40, step) + 1.0 for n in range(40) for step in range(STEPS)]
    np.testing.assert_allclose(trainer.ranges["u"], [np.min(values), np.max(values)], rtol=1e-5)


def test_the_ranges_of_input_fields_are_known_and_continue_after_a_checkpoint():
    sections = {"simulation": {"inputs": {"k": {"shape": [3]}}}, "surrogate": {"task": "operator"}}
    trainer, _ = trainer_of(study_of(**sections))
    trainer.run()
    np.testing.assert_allclose(trainer.ranges["k"], [5.0, 5.0 + 3.0 * 11 / 12], rtol=1e-6)
    state = json.loads(json.dumps(trainer.state()))
    again, _ = trainer_of(study_of(**sections))
    again.restore(state)
    assert again.ranges == trainer.ranges


def share_ranges(rank, folder):
    study = study_of(simulation={"inputs": {"k": {"shape": [3]}}}, surrogate={"task": "operator"})
    rows = reservoir.SlotStore({"u": ((6,), "f4")}, 4, 2, input_specs={"k": ((3,), "f4")})
    memory = reservoir.create("reservoir", rows, 3, 1, 0)
    surrogate = build_surrogate(study)
    scaling = Scaling(surrogate, memory, torch.device("cpu"))
    slot, size = rows.acquire(), rank + 1.0
    rows.row(slot, "u")[:] = size * np.arange(-2, 4)
    given = {"k": np.full(3, -10.0 * size, np.float32)}
    memory.put(slot, reservoir.Sample(rank, 0, [0.0, 0.0], input_fields=given))
    scaling.drifted()
    scaling.share_ranges()
    scaling.start([])
    scale = [surrogate.field_mean.item(), surrogate.field_std.item()]
    Path(f"{folder}/{rank}.json").write_text(json.dumps([scaling.ranges, scale]))


def test_ranges_and_the_scale_of_input_fields_are_those_of_all_ranks(tmp_path):
    run_on_two_ranks(share_ranges, tmp_path)
    for rank in range(2):
        ranges, scale = json.loads((tmp_path / f"{rank}.json").read_text())
        assert ranges == {"u": [-4.0, 6.0], "k": [-20.0, -10.0]}
        assert scale == [-15.0, 5.0]


def test_the_statistics_continue_after_a_checkpoint():
    first, _ = trainer_on_a_stream()
    first.run()
    state = json.loads(json.dumps(first.state()))
    surrogate = build_surrogate(study_of())
    surrogate.load_state_dict(first.surrogate.state_dict())
    store = reservoir.SlotStore({"u": ((6,), "f4")}, 3, 2)
    again = Scaling(surrogate, reservoir.create("reservoir", store, 2, 1, 0), torch.device("cpu"))
    again.restore(state["scaling"])
    assert again.state() == state["scaling"]
    assert not again.drifted() and again.adapt() is None


@pytest.mark.parametrize("name", ["Adam", "Adamax", "RMSprop", "Adagrad"])
def test_the_state_of_the_optimizer_becomes_that_of_the_new_scale(name):
    """Gradients change by the same factors, so that the next step has its usual size."""
    surrogate = Surrogate({"a": (0, 1)}, (0, 1), {"u": (5,)}, arguments={"hidden": [16]})
    surrogate.set_output_statistics({"u": 0.0}, {"u": 1e-2})
    optimizer = getattr(torch.optim, name)(surrogate.parameters(), 1e-3)
    points = torch.rand(32, 2)
    target = {"u": torch.sin(3 * points[:, :1] + points[:, 1:] * torch.arange(5))}

    def step():
        before = [p.detach().clone() for p in surrogate.parameters()]
        loss = surrogate(points[:, :1], points[:, 1], standardized=True) - surrogate.target(target)
        optimizer.zero_grad()
        loss.square().mean().backward()
        optimizer.step()
        return [p.detach() - old for p, old in zip(surrogate.parameters(), before, strict=True)]

    usual = [step() for _ in range(5)][-1]
    rescale_moments(optimizer, surrogate.rescale_output(np.zeros(1), np.ones(1)))
    for before, after in zip(usual[:-2], step()[:-2], strict=True):
        assert 0.5 < float(after.norm() / before.norm()) < 2.0


def test_a_rollback_to_an_earlier_scale_converts_the_losses_back():
    """The losses in memory are in the unit of the scale in use, also after weights of an earlier scale return."""
    training = {"batch_size": 8, "learning_rate": 0.01, "on_divergence": "rollback"}
    trainer, events = trainer_on_a_stream(training=training)
    factors, learn = [], trainer.learn
    trainer.reservoir.rescale_losses = factors.append
    rescaled = lambda: [one for one in events if one["event"] == "rescaled"]  # noqa: E731
    broken = []

    def learn_and_break_once(batch, total):
        if len(rescaled()) == 2 and not broken:
            broken.append(trainer.batches)
            with torch.no_grad():
                next(trainer.surrogate.network.parameters()).fill_(torch.nan)
        return learn(batch, total)

    trainer.learn = learn_and_break_once
    assert trainer.run() is None
    assert broken and trainer.guard.rollbacks == 1
    first = rescaled()[0]["fields"]["u"]["previous_width"][0]
    last = rescaled()[-1]["fields"]["u"]["width"][0]
    assert np.log(factors).sum() == pytest.approx(2 * np.log(first / last), abs=1e-3)

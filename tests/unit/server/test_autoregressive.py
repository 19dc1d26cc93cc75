"""The task `autoregressive`: training on windows, rollouts in the validation, files, and mistakes."""

import copy

import numpy as np
import pytest
import torch

from melissa_gen.builders.memory import batch_megabytes, promised_megabytes
from melissa_gen.builders.surrogate import build_surrogate, try_surrogate
from melissa_gen.builders.task import build_task
from melissa_gen.dataset import DatasetWriter
from melissa_gen.errors import DataError, StudyError
from melissa_gen.server.training.validation import Validation
from melissa_gen.surrogates import AutoregressiveSurrogate, export, load, save
from melissa_gen.surrogates.training_trial import TrainingTrial
from melissa_gen.tasks import Autoregressive, Rows
from tests.unit.server.trainers import generator, study_of, trainer_of, world

__all__ = ["generator", "world"]


def task_of(**arguments):
    return {"class": "autoregressive", "arguments": arguments}


def study_with(arguments, steps=8, **sections):
    sections = {"training": {"learning_rate": 0.01}, **sections}
    sections["surrogate"] = {"task": task_of(**arguments), **sections.get("surrogate", {})}
    sections["simulation"] = {"time_steps": steps}
    sections["reservoir"] = {"capacity": 96, "watermark": 8}
    return study_of(**sections)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"history": 2, "stride": 2, "time": True},
        {"predicts": "increment", "noise": 0.01},
        {"rollout": 3, "pushforward": True},
        {"rollout": [{"batches": 0, "rollout": 1}, {"batches": 4, "rollout": 2}]},
    ],
)
@pytest.mark.parametrize("ensemble", [None, {"kind": "heads"}])
def test_windows_are_learned(arguments, ensemble):
    trainer, state = trainer_of(study_with(arguments, surrogate={"ensemble": ensemble}))
    trainer.wait_for_first_samples()
    batch = trainer.draw(8)
    losses = [float(trainer.learn(batch, 8).mean()) for _ in range(150)]
    assert losses[-1] < 0.5 * losses[0] or ("noise" in arguments and losses[-1] < losses[0])
    assert {n for n, *_ in state.take_first_pass()} <= set(range(12))


def states(surrogate, steps):
    """A row whose standardized field doubles in each step, from 1."""
    fields = {"u": 2.0 ** torch.arange(steps)[None, :, None].repeat(1, 1, 6)}
    return Rows(torch.zeros(1, steps, 2, dtype=torch.float64), fields)


def compared(arguments, factor, batches=0, steps=4):
    """What the network that multiplies by a factor is compared with."""
    task = Autoregressive(**arguments)
    study = study_with(arguments, surrogate={"class": f"{__file__}:Factor"})
    surrogate = build_surrogate(study, task)
    surrogate.network.factor.data.fill_(factor)
    rows = states(surrogate, steps)
    return surrogate, task.compare(surrogate, surrogate.network, rows, batches)


def test_each_step_of_a_rollout_follows_from_the_prediction_before_it():
    surrogate, found = compared({"rollout": 3}, 3.0)
    assert [float(one.members[0, 0, 0].detach()) for one in found] == [3.0, 9.0, 27.0]
    assert [float(one.target[0, 0]) for one in found] == [2.0, 4.0, 8.0]
    found[-1].members.sum().backward()
    # The gradient of 3 w^2 for each of the 6 values: through all steps.
    assert float(surrogate.network.factor.grad) == 6 * 3 * 3.0**2


def test_pushforward_has_a_loss_and_a_gradient_of_the_last_step_alone():
    surrogate, found = compared({"rollout": 3, "pushforward": True}, 3.0)
    (last,) = found
    assert float(last.members[0, 0, 0].detach()) == 27.0 and float(last.target[0, 0]) == 8.0
    last.members.sum().backward()
    # The steps before it are constants: the gradient of 9 w.
    assert float(surrogate.network.factor.grad) == 6 * 9.0


def test_a_rollout_grows_by_its_schedule():
    schedule = [{"batches": 0, "rollout": 1}, {"batches": 4, "rollout": 2}]
    schedule.append({"batches": 9, "rollout": 3})
    lengths = [len(compared({"rollout": schedule}, 1.0, n)[1]) for n in (0, 3, 4, 8, 9, 100)]
    assert lengths == [1, 1, 2, 2, 3, 3]


def test_noise_is_added_to_the_given_fields_in_training_alone():
    (clean,) = compared({}, 1.0, steps=2)[1]
    noisy = [compared({"noise": 0.5}, 1.0, steps=2)[1][0] for _ in range(200)]
    shifts = torch.stack([one.members - clean.members for one in noisy]).detach()
    assert float(shifts.std()) == pytest.approx(0.5, rel=0.1)
    assert all(torch.equal(one.target, clean.target) for one in noisy)
    surrogate, _ = compared({"noise": 0.5}, 1.0)
    given = {"u": np.ones(6)}
    np.testing.assert_array_equal(surrogate.predict({"a": 0.5}, given, 1)["u"], np.ones((1, 6)))


def test_all_windows_are_drawn_and_the_losses_reach_their_simulations():
    trainer, state = trainer_of(study_with({"rollout": 2}))
    assert trainer.run() is None
    found = state.take_first_pass()
    # 12 simulations with windows of 3 steps in 8.
    assert len(found) == 12 * 6 and trainer.batches == 9
    counters = trainer.reservoir.counters()
    assert counters["trained"] == counters["stored"] == 96


@pytest.mark.parametrize("section", [{"ema": 0.9}, {"on_divergence": "rollback"}])
def test_averaged_and_restored_weights_have_the_scale_of_the_increments(section):
    study = study_with({"predicts": "increment"}, training=section | {"learning_rate": 0.01})
    trainer, _ = trainer_of(study)
    trainer.wait_for_first_samples()
    trainer.learn(trainer.draw(8), 8)
    assert trainer.surrogate.increment != 1.0
    assert trainer.model.increment == trainer.surrogate.increment
    if "on_divergence" in section:
        width = float(trainer.surrogate.increment)
        trainer.surrogate.network.requires_grad_(False)
        for weight in trainer.surrogate.parameters():
            weight.fill_(float("nan"))
        trainer.surrogate.network.requires_grad_(True)
        trainer.learn(trainer.draw(8), 8)
        trainer.guard.respond(trainer.batches, trainer.learning_rate)
        assert float(trainer.surrogate.increment) == width


def test_the_scale_of_the_increments_is_that_of_the_ranks_with_data():
    task = Autoregressive(predicts="increment")
    surrogate = build_surrogate(study_with({"predicts": "increment"}), task)
    fields = {"u": torch.arange(36.0).reshape(3, 2, 6)}
    task.start(surrogate, Rows(torch.zeros(3, 2, 2), fields))
    assert float(surrogate.increment) == 6.0
    task = Autoregressive(predicts="increment")
    task.start(surrogate, task.example(surrogate)._replace(made_up=True))
    assert float(surrogate.increment) == 6.0


def test_the_scale_of_the_increments_follows_a_field_that_begins_to_move():
    task = Autoregressive(predicts="increment")
    surrogate = build_surrogate(study_with({"predicts": "increment"}), task)
    average = copy.deepcopy(surrogate)
    motion = torch.randn(64, 2, 6)
    inputs = torch.zeros(64, 2, 2, dtype=torch.float64)
    task.start(surrogate, Rows(inputs, {"u": motion[:, :1].repeat(1, 2, 1)}))
    assert float(surrogate.increment) == 1.0

    def predicted(one):
        given = torch.linspace(-1, 1, 24).reshape(4, 1, 6)
        return (one.step(one.network, inputs[:4, 0, :1], inputs[:4, 0, 1], given) - given).detach()

    expected, sizes = (predicted(surrogate), predicted(average)), []
    for size in (0.0, 1e-4, 10.0):
        fields = {"u": motion[:, :1] + size * (motion - motion[:, :1])}
        for _ in range(8):
            task.compare(surrogate, surrogate.network, Rows(inputs, fields), 0)
            if task.drifted():
                rescaling = task.adapt([surrogate, average])
                assert rescaling.in_last_layer and rescaling.loss_factor == 1.0
                assert not task.drifted() and task.adapt([surrogate]) is None
        sizes.append(float(surrogate.increment))
        assert float(average.increment) == sizes[-1]
        for one, before in zip((surrogate, average), expected, strict=True):
            torch.testing.assert_close(predicted(one), before, rtol=1e-4, atol=1e-6)
    # Of random numbers the difference is the root of 2; a third of the batches were at rest, a third hardly moved.
    assert sizes == pytest.approx([1.0, 1e-4, 14.1 / 3**0.5], rel=0.5)
    task.rolled_back()
    assert not task.drifted()


def test_a_study_whose_first_windows_are_at_rest_learns_its_increments():
    study = study_with({"predicts": "increment"})
    trainer, _ = trainer_of(study)
    store = trainer.reservoir.store
    u, rest = store.arrays["u"], {}
    for slot in sorted(trainer.reservoir.slots(), key=lambda slot: store.steps[slot]):
        first = rest.setdefault(int(store.simulations[slot]), u[slot].copy())
        u[slot] = first + 0.02 * (u[slot] - first)
    still = torch.from_numpy(np.stack(list(rest.values())))[:8]
    draw, drawn = trainer.draw, []

    def at_rest_first(count):
        batch = draw(count)
        if len(drawn) < 3:
            trainer.rows.fields["u"].copy_(still[:, None].expand(-1, 2, -1))
        drawn.append(batch)
        return batch

    trainer.draw = at_rest_first
    assert trainer.run() is None and len(drawn) > 6
    assert 0.003 < float(trainer.surrogate.increment) < 0.03
    task = build_task(study)
    task.restore(task.state_of_new_rank(trainer.state()["learner"]["task"]))
    assert not task.drifted()


def test_a_rank_without_data_takes_part():
    trainer, _ = trainer_of(study_with({"history": 2}))
    trainer.learn(None, 8)
    assert all((w.grad == 0).all() for w in trainer.surrogate.parameters())
    assert all(torch.isfinite(t).all() for t in trainer.surrogate.state_dict().values())


def growth(path, rate=0.1, simulations=3, steps=9):
    """Trajectories that grow by a constant factor, which a network can represent exactly."""
    with DatasetWriter(path, {"u": ((4,), "f4")}, steps, ["a"], simulations, {}) as writer:
        for row in range(simulations):
            writer.begin(row, row, [row / simulations])
            for step in range(steps):
                writer.write(row, step, "u", np.arange(1, 5) * (1 + rate) ** step)
            writer.finish(row)
    return path


class Factor(torch.nn.Module):
    """Multiplies the last field."""

    def __init__(self, n_inputs, output_shape, history=1):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(1.0))
        self.values = output_shape[0]

    def forward(self, inputs):
        return self.factor * inputs[:, -self.values :]


def rolled(tmp_path, factor, **arguments):
    task = Autoregressive(**arguments)
    surrogate = task.make_surrogate(
        parameters={"a": (0, 1)},
        times=(0, 8),
        time_steps=9,
        fields={"u": (4,)},
        class_path=f"{__file__}:Factor",
    )
    surrogate.network.factor.data.fill_(factor)
    validation = Validation(growth(tmp_path / "d.h5"), torch.device("cpu"), 2, task=task)
    return surrogate, validation


@pytest.mark.parametrize(("history", "stride"), [(1, 1), (2, 1), (2, 3)])
def test_a_rollout_from_the_first_steps_has_the_error_of_its_steps(tmp_path, history, stride):
    surrogate, validation = rolled(tmp_path, 1.1**stride, history=history, stride=stride)
    assert validation.errors(surrogate).total == pytest.approx(0.0, abs=1e-5)
    surrogate.network.factor.data.fill_(1.0)
    steps = np.arange(history * stride, 9, stride)
    start = 1.1 ** ((history - 1) * stride)
    wanted = np.sqrt(np.square(1.1**steps - start).sum() / np.square(1.1**steps).sum())
    found = validation.errors(surrogate)
    assert found.total == pytest.approx(wanted, rel=1e-5)
    for one in found.by_step:
        np.testing.assert_allclose(one, 1 - start / 1.1**steps, rtol=1e-4)
    np.testing.assert_array_equal(found.steps, steps)
    # Each field is a multiple of the prediction, so that all steps are correlated.
    np.testing.assert_array_equal(found.correlation_times, [found.times[-1]] * 3)
    curve = found.against_time()
    assert curve["steps"] == steps.tolist() and curve["times"] == found.times.tolist()
    np.testing.assert_allclose(curve["p95"], found.by_step[0])


def test_a_rollout_that_diverges_has_a_large_finite_error(tmp_path):
    surrogate, validation = rolled(tmp_path, 1e30)
    found = validation.errors(surrogate)
    assert np.isfinite(found.total).all() and (found.total > 100).all()
    assert np.isfinite(found.by_step).all()
    surrogate.network.factor.data.fill_(-1.0)
    np.testing.assert_array_equal(validation.errors(surrogate).correlation_times, [0.0] * 3)


def test_a_saved_surrogate_predicts_from_its_first_steps(tmp_path):
    study = study_with({"history": 2, "predicts": "increment"})
    surrogate = build_surrogate(study).eval()
    save(surrogate, tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert isinstance(loaded, AutoregressiveSurrogate)
    initial = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    first = surrogate.predict({"a": 0.5}, {"u": initial}, steps=5)["u"]
    assert first.shape == (5, 6)
    np.testing.assert_array_equal(loaded.predict({"a": 0.5}, {"u": initial}, 5)["u"], first)
    with pytest.raises(DataError, match=r"initial\['u'\] .* must be \(2, 6\), the last steps"):
        loaded.predict({"a": 0.5}, {"u": initial[0]}, 5)
    for fields in ({}, {"u": initial, "v": initial}):
        with pytest.raises(DataError, match="it must hold u, the fields"):
            loaded.predict({"a": 0.5}, fields, 5)
    export(loaded, tmp_path / "step.pt2")
    program = torch.export.load(tmp_path / "step.pt2").module()
    given = torch.from_numpy(initial)[None]
    answer = program(
        torch.tensor([[0.5]], dtype=torch.float64),
        torch.tensor([1.0], dtype=torch.float64),
        given,
    )
    np.testing.assert_allclose(answer["u"][0].detach(), first[0], rtol=1e-5)


class Unchanged(torch.nn.Module):
    """A network whose output has the shape of its inputs."""

    def __init__(self, n_inputs, output_shape):
        super().__init__()

    def forward(self, inputs):
        return inputs


@pytest.mark.parametrize(
    ("task", "found"),
    [
        ("autoregressive", r"\(2, 7\) .* must be \(2, 6\)"),
        ("pointwise", r"\(2, 3\) .* must be \(2,\)"),
        ("operator", r"\(2, 5\) .* must be \(2, 6\)"),
        (
            {"class": "operator", "arguments": {"predicts": "trajectory"}},
            r"\(2, 4\) .* must be \(2, 8, 6\)",
        ),
    ],
)
def test_a_network_with_another_output_is_one_sentence(task, found):
    operator = {"inputs": {"k": {"shape": [3]}}} if "operator" in str(task) else {}
    study = study_of(
        simulation={"time_steps": 8, **operator},
        surrogate={"task": task, "class": f"{__file__}:Unchanged"},
    )
    with pytest.raises(StudyError, match=rf"Unchanged' returned {found}") as error:
        build_surrogate(study)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("predicts", ["field", "increment"])
def test_a_changed_scale_keeps_the_function_of_the_standardized_given_fields(predicts, tmp_path):
    surrogate = build_surrogate(study_with({"predicts": predicts}))
    surrogate.set_output_statistics({"u": 1.0}, {"u": 2.0})
    surrogate.fix_input_scale()
    given = np.arange(6, dtype=np.float32)

    def network_part(surrogate, given):
        found = surrogate.predict({"a": 0.3}, {"u": given}, 1)["u"][0]
        return found - given if predicts == "increment" else found

    before = network_part(surrogate, given)
    surrogate.rescale_output(np.array([3.0]), np.array([20.0]))
    given = 3.0 + 20.0 * (given - 1.0) / 2.0
    after = network_part(surrogate, given)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)
    save(surrogate, tmp_path)
    np.testing.assert_array_equal(network_part(load(tmp_path), given), after)


@pytest.mark.parametrize("network", ["UNet", "FNO", "TFNO", "UNO", "DeepONet"])
@pytest.mark.parametrize("conditioning", ["film", "channels"])
def test_networks_on_grids_use_fields_and_parameters(network, conditioning):
    pytest.importorskip("neuralop") if network.endswith("NO") else None
    sizes = {"UNet": {"width": 8, "levels": 1}, "DeepONet": {"basis": 8}}
    arguments = sizes.get(network, {"hidden_channels": 8, "n_modes": 4})
    study = study_with(
        {"history": 2},
        surrogate={
            "class": f"melissa_gen.surrogates.{network}",
            "arguments": arguments | {"conditioning": conditioning},
        },
    )
    try_surrogate(study)
    surrogate = build_surrogate(study)
    # At first, FiLM changes nothing.
    trial = TrainingTrial(surrogate, torch.optim.Adam(surrogate.parameters()))
    trial.step(4)
    trial.step(4)
    surrogate.eval()
    given = torch.randn(1, 2, 6)
    one, time = torch.full((1, 1), 0.5, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    assert not torch.equal(surrogate(one, time, given)["u"], surrogate(one, time, 2 * given)["u"])
    other = torch.full((1, 1), 0.9, dtype=torch.float64)
    assert not torch.equal(surrogate(one, time, given)["u"], surrogate(other, time, given)["u"])


@pytest.mark.parametrize(
    ("network", "conditioning"),
    [
        ("UNet", "film"),
        ("UNet", "channels"),
        ("FNO", "film"),
        ("FNO", "channels"),
        ("DeepONet", "film"),
    ],
)
def test_heads_of_networks_on_grids_are_trained(network, conditioning):
    pytest.importorskip("neuralop") if network == "FNO" else None
    given = {"class": f"melissa_gen.surrogates.{network}", "ensemble": {"kind": "heads"}}
    sizes = {"UNet": {"width": 8, "levels": 1}, "FNO": {"n_modes": 4, "hidden_channels": 8}}
    arguments = {"conditioning": conditioning, **sizes.get(network, {})}
    study = study_with({"history": 2}, surrogate=given | {"arguments": arguments})
    try_surrogate(study)
    trainer, _ = trainer_of(study)
    trainer.wait_for_first_samples()
    batch = trainer.draw(8)
    losses = [float(trainer.learn(batch, 8).mean()) for _ in range(80)]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("arguments", "sections", "words"),
    [
        ({"history": 9}, {}, "needs windows of 10 time steps, but simulation.time_steps is 8"),
        ({"history": 0}, {}, "surrogate.task.arguments.history is 0"),
        ({"rollout": []}, {}, "surrogate.task.arguments.rollout is []"),
        ({"rollout": [{"batches": 5, "rollout": 2}]}, {}, "ascending batches from 0"),
        ({"predicts": "change"}, {}, "field and increment"),
        ({"noise": -1.0}, {}, "surrogate.task.arguments.noise is -1.0"),
        ({}, {"sampler": {"difficulty": "gradient_norm"}}, "gradient_norm is not available"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, sections, words):
    with pytest.raises(StudyError) as error:
        build_task(study_with(arguments, **sections))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_the_promised_memory_covers_rollouts_of_several_simulations():
    def promised(batch_size):
        validation = {"simulations": 20, "every": 10}
        training = {"batch_size": batch_size, "validation": validation}
        study = study_with({}, steps=50, training=training)
        return promised_megabytes(study) - batch_megabytes(study), 50 * study.sample_bytes / 1e6

    (few, each), (many, _) = promised(2), promised(8)
    assert many - few == pytest.approx(6 * each)

"""The task `operator` for whole trajectories: training, validation, files, predictions, and mistakes."""

import json

import numpy as np
import pytest
import torch

from melissa_gen.builders.memory import growing_slots
from melissa_gen.builders.surrogate import build_surrogate, try_surrogate
from melissa_gen.builders.task import build_task
from melissa_gen.builders.windows import window_shape
from melissa_gen.dataset import DatasetWriter
from melissa_gen.errors import DataError, StudyError
from melissa_gen.server.training.validation import Validation
from melissa_gen.surrogates import UNet, export, load, save
from melissa_gen.surrogates.grid import Grid
from tests.unit.server.trainers import generator, study_of, trainer_of, world

__all__ = ["generator", "world"]

INPUTS = {"k": {"shape": [6]}, "mask": {"shape": [2, 6], "dtype": "float64"}}
TASK = {"class": "operator", "arguments": {"predicts": "trajectory"}}


def study_with(inputs=INPUTS, training=None, **surrogate):
    return study_of(
        simulation={"inputs": inputs},
        training={"learning_rate": 0.01, **(training or {})},
        surrogate={"task": TASK, **surrogate},
    )


def unet(dimensions):
    arguments = {"width": 8, "levels": 1, "dimensions": dimensions}
    return {"class": "melissa_gen.surrogates.UNet", "arguments": arguments}


def fno(**arguments):
    given = {"n_modes": 3, "hidden_channels": 8, **arguments}
    return {"class": "melissa_gen.surrogates.FNO", "arguments": given}


NETWORKS = {
    "MLP": {},
    "DeepONet": {"class": "melissa_gen.surrogates.DeepONet", "arguments": {"basis": 8}},
    "DeepONet-over-time": {
        "class": "melissa_gen.surrogates.DeepONet",
        "arguments": {"basis": 8, "dimensions": 2},
    },
    "UNet": unet(None),
    "UNet-over-time": unet(2),
    "FNO": fno(),
    "FNO-over-time": fno(dimensions=2),
    "FNO-over-time with FiLM": fno(dimensions=2, conditioning="film"),
    "heads": {"ensemble": {"kind": "heads"}},
    "heads of UNet-over-time": {**unet(2), "ensemble": {"kind": "heads"}},
    "heads of DeepONet": {
        "class": "melissa_gen.surrogates.DeepONet",
        "arguments": {"basis": 8},
        "ensemble": {"kind": "heads"},
    },
    "members": {"ensemble": {"kind": "members"}},
}


@pytest.mark.parametrize("network", NETWORKS)
def test_trajectories_are_learned_from_inputs(network):
    pytest.importorskip("neuralop") if "FNO" in network else None
    study = study_with(**NETWORKS[network])
    try_surrogate(study)
    trainer, state = trainer_of(study)
    trainer.wait_for_first_samples()
    batch = trainer.draw(8)
    assert batch.fields["u"].shape == (8, 4, 6) and batch.fields["mask"].shape == (8, 2, 6)
    losses = [float(trainer.learn(batch, 8).mean()) for _ in range(60)]
    assert losses[-1] < 0.7 * losses[0]
    assert {n for n, *_ in state.take_first_pass()} <= set(range(12))


def test_each_trajectory_is_drawn_once_and_all_its_time_steps_are_trained():
    trainer, state = trainer_of(study_with())
    assert trainer.run() is None
    # 12 trajectories in batches of 8.
    assert len(state.take_first_pass()) == 12 and trainer.batches == 2
    counters = trainer.reservoir.counters()
    assert counters["trained"] == counters["stored"] == 48 and counters["samples_drawn"] == 12


@pytest.mark.parametrize("loss", ["relative", "h1", "huber"])
def test_the_loss_of_a_trajectory_is_the_mean_over_its_time_steps(loss):
    study = study_with(training={"loss": loss})
    trainer, _ = trainer_of(study)
    trainer.wait_for_first_samples()
    batch = trainer.draw(8)
    found = trainer.learn(batch, 8)
    assert found.shape == (8,) and torch.isfinite(found).all() and (found > 0).all()


def test_a_trajectory_is_predicted_saved_and_exported(tmp_path):
    surrogate = build_surrogate(study_with())
    surrogate.set_input_scale([5.0, 3.0], [5.0**0.5, 0.0])
    surrogate.set_output_statistics({"u": 2.0}, {"u": 3.0})
    given = {"k": np.arange(6.0), "mask": np.zeros((2, 6))}
    first = surrogate.predict({"a": 0.5}, given)["u"]
    assert first.shape == (4, 6)
    assert (
        np.abs(first - surrogate.predict({"a": 0.5}, given | {"k": given["k"] + 1})["u"]).max() > 0
    )
    np.testing.assert_array_equal(surrogate.moments, [0.0, 1.0, 2.0, 3.0])
    save(surrogate, tmp_path / "model")
    loaded = load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict({"a": 0.5}, given)["u"], first)
    more = {"about.json": ""}
    program = torch.export.load(export(loaded, tmp_path / "model.pt2"), extra_files=more).module()
    fields = [torch.from_numpy(array).float().expand(2, *array.shape) for array in given.values()]
    answer = program(torch.full((2, 1), 0.5).double(), *fields)["u"]
    assert answer.shape == (2, 4, 6) and json.loads(more["about.json"])["time_steps"] == 4
    np.testing.assert_allclose(answer.detach().numpy()[1], first, rtol=1e-4, atol=1e-5)


def test_a_trajectory_is_exported_to_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    surrogate = build_surrogate(study_with())
    given = {"k": np.arange(6.0), "mask": np.zeros((2, 6))}
    session = onnxruntime.InferenceSession(str(export(surrogate, tmp_path / "model.onnx")))
    assert [one.name for one in session.get_inputs()] == ["parameters", "k", "mask"]
    fields = {name: array[None].astype(np.float32) for name, array in given.items()}
    answer = session.run(None, {"parameters": np.full((1, 1), 0.5), **fields})[0]
    np.testing.assert_allclose(
        answer[0], surrogate.predict({"a": 0.5}, given)["u"], rtol=1e-4, atol=1e-5
    )


def test_a_predicted_trajectory_has_labeled_axes():
    pytest.importorskip("xarray", reason="to_xarray needs xarray")
    surrogate = build_surrogate(study_with())
    given = {"k": np.arange(6.0), "mask": np.zeros((2, 6))}
    found = surrogate.to_xarray({"a": 0.5}, given)
    assert found["u"].dims == ("simulation", "time", "axis_0") and found["u"].shape == (1, 4, 6)
    np.testing.assert_array_equal(found["u"][0], surrogate.predict({"a": 0.5}, given)["u"])
    at_times = build_surrogate(
        study_of(simulation={"inputs": INPUTS}, surrogate={"task": "operator"})
    )
    one = at_times.to_xarray({"a": 0.5}, given, [0.0, 1.5])
    assert one["u"].shape == (1, 2, 6) and one["time"].values.tolist() == [0.0, 1.5]
    np.testing.assert_array_equal(one["u"][0], at_times.predict({"a": 0.5}, given, [0.0, 1.5])["u"])


def test_derivatives_by_input_fields_are_those_of_finite_differences():
    given = {"k": np.arange(6.0) / 6, "mask": np.zeros((2, 6))}
    smooth = {"arguments": {"hidden": [16], "activation": "tanh"}}
    at_times = study_of(simulation={"inputs": INPUTS}, surrogate={"task": "operator", **smooth})
    for study, time in ((study_with(**smooth), {}), (at_times, {"time": 1.5})):
        surrogate = build_surrogate(study)
        lead = () if time else (4,)
        found = surrogate.jacobian({"a": 0.5}, given, **time)["u"]
        assert set(found) == {"a", "k", "mask", *time}
        assert found["mask"].shape == (*lead, 6, 2, 6) and found["a"].shape == (*lead, 6)
        for number in range(6):
            shift = 1e-2 * np.eye(6)[number]
            ends = [
                surrogate.predict({"a": 0.5}, {**given, "k": given["k"] + sign * shift}, **time)
                for sign in (1, -1)
            ]
            slope = (ends[0]["u"].astype(float) - ends[1]["u"]) / 2e-2
            np.testing.assert_allclose(found["k"][..., number], slope, rtol=2e-2, atol=2e-3)
        along = surrogate.jacobian({"a": 0.5}, given, **time, directions={"k": np.ones(6)})["u"]
        assert set(along) == {"a", "k", *time}
        np.testing.assert_allclose(along["k"], found["k"].sum(axis=-1), rtol=1e-4, atol=1e-5)


def test_changed_scales_keep_the_predicted_trajectory():
    surrogate = build_surrogate(study_with())
    surrogate.set_output_statistics({"u": 2.0}, {"u": 3.0})
    given = {"k": np.arange(6.0), "mask": np.zeros((2, 6))}
    before = surrogate.predict({"a": 0.5}, given)["u"]
    rescaling = surrogate.rescale_output(np.array([5.0]), np.array([9.0]))
    assert rescaling.in_last_layer
    np.testing.assert_allclose(surrogate.predict({"a": 0.5}, given)["u"], before, rtol=1e-4)


def test_a_rank_without_data_takes_part():
    trainer, _ = trainer_of(study_with())
    trainer.learn(None, 8)
    assert all((w.grad == 0).all() for w in trainer.surrogate.parameters())


class Growing(torch.nn.Module):
    """Returns the input field times the number of the time step, counted from 1."""

    def __init__(self, n_inputs, output_shape, input_shapes, trajectory):
        super().__init__()
        assert input_shapes == {"k": (6,)} and n_inputs == 7 and output_shape == (trajectory, 6)
        self.factor = torch.nn.Parameter(torch.arange(1.0, trajectory + 1)[:, None])

    def forward(self, inputs):
        return self.factor * inputs[:, None, -6:]


def test_each_validation_simulation_is_predicted_from_its_own_inputs(tmp_path):
    path = tmp_path / "set.h5"
    with DatasetWriter(path, {"u": ((6,), "f4")}, 4, ["a"], 4, {}, inputs={"k": ((6,), "f4")}) as w:
        for row in range(4):
            k = np.arange(6, dtype="f4") * (1 + row)
            w.begin(row, row, [0.5], {"k": k})
            for step in range(4):
                w.write(row, step, "u", k * (1 + step))
            w.finish(row)
    study = study_with({"k": {"shape": [6]}}, **{"class": f"{__name__}.Growing"})
    surrogate = build_surrogate(study)
    validation = Validation(path, torch.device("cpu"), 2, task=build_task(study))
    assert validation.errors(surrogate).total.max() < 1e-5
    found = validation.save_cases(surrogate, tmp_path / "errors.npz", {"u": "m"})
    assert found.by_step.shape == (4, 4)


def test_time_is_a_channel_or_an_axis_of_the_grid():
    assert Grid.of((5, 8, 8), trajectory=5) == Grid(5, (8, 8))
    assert Grid.of((5, 8), trajectory=5) == Grid(5, (8,))
    over_time = Grid.of((5, 8, 8), 3, trajectory=5)
    assert over_time == Grid(1, (5, 8, 8), True)
    # An input field is repeated along the axis of time.
    count = over_time.given_channels(0, {"k": (8, 8), "mask": (2, 8, 8)})
    inputs = torch.arange(1 + 3 * 64.0)[None]
    fields, constants = over_time.fields_and_constants(inputs, count)
    assert count == 3 and constants.shape == (1, 1) and fields.shape == (1, 3, 5, 8, 8)
    assert (fields == fields[:, :, :1]).all() and float(fields[0, 2, 4, 7, 7]) == 192.0
    with pytest.raises(
        StudyError, match=r"k has the shape \[8\], which is not on the grid \[8, 8\]"
    ):
        over_time.given_channels(0, {"k": (8,)})


def test_the_memory_of_incomplete_trajectories_is_counted():
    # Those of a client and a lost one.
    study = study_with()
    assert growing_slots(study, window_shape(study)) == 2 * 4


def refused(sentence, **sections):
    task = {"surrogate": {"task": TASK}, "simulation": {"inputs": INPUTS}}
    for section, keys in sections.items():
        task[section] = {**task.get(section, {}), **keys}
    with pytest.raises(StudyError, match=sentence):
        build_surrogate(study_of(**task))


def test_what_does_not_go_with_trajectories_is_refused():
    refused("policy must be reservoir: fifo draws single time steps", reservoir={"policy": "fifo"})
    refused(
        "capacity must be at least 10; it is 9",
        simulation={"time_steps": 10, "inputs": INPUTS},
        reservoir={"capacity": 9, "watermark": 8},
    )
    refused("gradient_norm is not available", sampler={"difficulty": "gradient_norm"})
    refused(
        "predicts is trajectory, but simulation.time_steps is 1",
        simulation={"time_steps": 1, "inputs": INPUTS},
    )
    refused(
        "predicts is whole: legal are field and trajectory",
        surrogate={"task": {"class": "operator", "arguments": {"predicts": "whole"}}},
    )


def test_wrong_inputs_of_a_prediction_are_named():
    surrogate = build_surrogate(study_with())
    with pytest.raises(DataError, match="inputs holds k; it must hold k, mask"):
        surrogate.predict({"a": 0.5}, {"k": np.zeros(6)})
    with pytest.raises(DataError, match="each parameter is a single number"):
        surrogate.predict({"a": [0.1, 0.2]}, {"k": np.zeros(6), "mask": np.zeros((2, 6))})
    with pytest.warns(UserWarning, match="prediction at a = 2 is an extrapolation"):
        surrogate.predict({"a": 2.0}, {"k": np.zeros(6), "mask": np.zeros((2, 6))})
    with pytest.raises(StudyError, match="levels is 5"):
        UNet(8, (4, 6), levels=5, trajectory=4)

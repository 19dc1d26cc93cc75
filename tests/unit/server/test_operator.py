"""The task `operator`: training with input fields, validation, files, and mistakes."""

import numpy as np
import pytest
import torch

from melissa_gen.builders.memory import batch_megabytes, promised_megabytes
from melissa_gen.builders.surrogate import build_surrogate, try_surrogate
from melissa_gen.builders.task import build_task
from melissa_gen.dataset import DatasetWriter
from melissa_gen.errors import DataError, StudyError
from melissa_gen.server.training.validation import Validation
from melissa_gen.surrogates import OperatorSurrogate, UNet, export, load, save
from melissa_gen.tasks import Operator, Rows
from tests.unit.server.trainers import generator, study_of, trainer_of, world

__all__ = ["generator", "world"]

INPUTS = {"k": {"shape": [6]}, "mask": {"shape": [2, 6], "dtype": "float64"}}


def study_with(inputs=INPUTS, **surrogate):
    return study_of(
        simulation={"inputs": inputs},
        training={"learning_rate": 0.01},
        surrogate={"task": "operator", **surrogate},
    )


NETWORKS = {
    "MLP": {},
    "DeepONet": {"class": "melissa_gen.surrogates.DeepONet", "arguments": {"basis": 8}},
    "UNet": {
        "class": "melissa_gen.surrogates.UNet",
        "arguments": {"width": 8, "levels": 1, "dimensions": 1},
    },
    "FNO": {
        "class": "melissa_gen.surrogates.FNO",
        "arguments": {"n_modes": 4, "hidden_channels": 8, "dimensions": 1},
    },
    "heads": {"ensemble": {"kind": "heads"}},
    "heads of UNet": {
        "class": "melissa_gen.surrogates.UNet",
        "arguments": {"width": 8, "levels": 1},
        "ensemble": {"kind": "heads"},
    },
}
for name in ("DeepONet", "FNO"):
    NETWORKS[f"{name} with FiLM"] = {
        "class": NETWORKS[name]["class"],
        "arguments": NETWORKS[name]["arguments"] | {"conditioning": "film"},
    }


@pytest.mark.parametrize("network", NETWORKS)
def test_fields_are_learned_from_inputs(network):
    pytest.importorskip("neuralop") if "FNO" in network else None
    study = study_with(**NETWORKS[network])
    try_surrogate(study)
    trainer, state = trainer_of(study)
    trainer.wait_for_first_samples()
    batch = trainer.draw(8)
    assert batch.fields["mask"].shape == (8, 2, 6)
    losses = [float(trainer.learn(batch, 8).mean()) for _ in range(60)]
    assert losses[-1] < 0.7 * losses[0]
    assert {n for n, *_ in state.take_first_pass()} <= set(range(12))
    # The scale of the inputs is that of all simulations.
    values = 5.0 + 3.0 * np.arange(12) / 12
    assert float(trainer.surrogate.field_mean[0]) == pytest.approx(values.mean())
    assert float(trainer.surrogate.field_std[0]) == pytest.approx(values.std())


def test_the_inputs_change_the_prediction():
    surrogate = build_surrogate(study_with())
    point, times = {"a": 0.5}, [0.0, 1.0, 2.0]
    k, mask = np.arange(6.0), np.ones((2, 6))
    first = surrogate.predict(point, {"k": k, "mask": mask}, times)["u"]
    assert first.shape == (3, 6)
    second = surrogate.predict(point, {"mask": mask, "k": k + 1}, times)["u"]
    assert np.abs(first - second).max() > 1e-3
    one = surrogate.predict(point, {"k": k, "mask": mask}, 1.0)["u"]
    np.testing.assert_allclose(one, first[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"k": np.zeros(6)}, "inputs holds k; it must hold k, mask"),
        ({"k": np.zeros(5), "mask": np.ones((2, 6))}, r"inputs\['k'\] has the shape \(5,\); it"),
    ],
)
def test_wrong_inputs_of_a_prediction_are_named(inputs, sentence):
    with pytest.raises(DataError, match=sentence):
        build_surrogate(study_with()).predict({"a": 0.5}, inputs, 1.0)


def test_a_saved_surrogate_has_the_scale_of_its_inputs(tmp_path):
    surrogate = build_surrogate(study_with())
    surrogate.set_input_scale([5.0, 3.0], [5.0**0.5, 0.0])
    assert surrogate.field_mean.tolist() == [5.0, 3.0]
    # A constant input is only centered.
    assert surrogate.field_std.tolist() == [5.0**0.5, 1.0]
    save(surrogate, tmp_path / "model")
    loaded = load(tmp_path / "model")
    given = {"k": np.arange(6.0), "mask": np.zeros((2, 6))}
    np.testing.assert_array_equal(
        loaded.predict({"a": 0.5}, given, 1.0)["u"], surrogate.predict({"a": 0.5}, given, 1.0)["u"]
    )
    program = torch.export.load(export(loaded, tmp_path / "model.pt2")).module()
    fields = [torch.from_numpy(array).float().expand(2, *array.shape) for array in given.values()]
    answer = program(torch.full((2, 1), 0.5).double(), torch.ones(2).double(), *fields)["u"]
    np.testing.assert_allclose(
        answer.detach().numpy()[0],
        loaded.predict({"a": 0.5}, given, 1.0)["u"],
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_rank_without_data_takes_part_and_does_not_change_the_scale():
    trainer, _ = trainer_of(study_with())
    trainer.learn(None, 8)
    assert all((w.grad == 0).all() for w in trainer.surrogate.parameters())
    assert trainer.surrogate.field_mean.tolist() == [0.0, 0.0]
    assert torch.isfinite(trainer.surrogate.field_std).all()


class Sum(torch.nn.Module):
    """Returns the input field times a factor, plus the time."""

    def __init__(self, n_inputs, output_shape, input_shapes):
        super().__init__()
        assert input_shapes == {"k": (6,)} and n_inputs == 8
        self.factor = torch.nn.Parameter(torch.ones(()))

    def forward(self, inputs):
        return self.factor * inputs[:, -6:] + inputs[:, 1:2]


def test_each_validation_simulation_is_predicted_from_its_own_inputs(tmp_path):
    path = tmp_path / "set.h5"
    with DatasetWriter(path, {"u": ((6,), "f4")}, 3, ["a"], 4, {}, inputs={"k": ((6,), "f4")}) as w:
        for row in range(4):
            k = np.arange(6, dtype="f4") * (1 + row)
            w.begin(row, row, [0.5], {"k": k})
            for step in range(3):
                w.write(row, step, "u", k + (step - 1.5) / 1.5)
            w.finish(row)
    study = study_with({"k": {"shape": [6]}}, **{"class": f"{__name__}.Sum"})
    surrogate = build_surrogate(study)
    validation = Validation(path, torch.device("cpu"), 2, task=build_task(study))
    errors = validation.errors(surrogate)
    assert errors.total.max() < 1e-5
    found = validation.save_cases(surrogate, tmp_path / "errors.npz", {"u": "m"})
    assert found.total.max() < 1e-5


def test_a_study_without_inputs_is_refused():
    with pytest.raises(StudyError, match="operator needs input fields; declare them in simulation"):
        build_surrogate(study_with({}))


def test_an_input_that_is_not_on_the_grid_is_refused():
    with pytest.raises(StudyError, match=r"inputs.k has the shape \[5\], which is not on the grid"):
        UNet(8, (6,), width=8, levels=1, input_shapes={"k": (5,)})


def test_the_memory_of_the_inputs_is_promised():
    small, large = (promised_megabytes(study_with({"k": {"shape": [n]}})) for n in (6, 100_000))
    # 12 simulations of 400 kB in the reservoir, and those in messages, batches and a checkpoint.
    assert large - small > 12 * 0.4
    assert Operator().takes_inputs and Rows(torch.zeros(1, 2), {}).fields == {}


def test_the_promise_counts_the_copies_of_the_inputs_of_a_batch_which_stay_as_they_are():
    small, large = (study_with({"k": {"shape": [n]}}) for n in (6, 100_000))
    copies = batch_megabytes(large) - batch_megabytes(small)
    # As they are, in float64, and twice in float32.
    assert copies >= large.training.batch_size * 99_000 * (4 + 8 + 2 * 4) / 1e6
    surrogate = OperatorSurrogate(
        parameters={"a": (0, 1)}, times=(0, 1), fields={"u": (6,)}, inputs={"k": (3,)}
    )
    surrogate.set_input_scale([4.0], [2.0])
    for dtype in (torch.float32, torch.float64):
        given = torch.tensor([[2.0, 4.0, 6.0]], dtype=dtype)
        encoded = surrogate.encoded(torch.zeros(1, 1), torch.zeros(1), {"k": given})
        assert given.tolist() == [[2.0, 4.0, 6.0]]
        np.testing.assert_allclose(encoded[0, -3:].detach(), [-1.0, 0.0, 1.0], atol=1e-6)


def test_a_prediction_outside_of_the_training_is_warned_of():
    surrogate = OperatorSurrogate(
        parameters={"a": (0, 1)}, times=(0, 1), fields={"u": (6,)}, inputs={"k": (3,)}
    )
    given = {"k": np.ones(3)}
    with pytest.warns(UserWarning, match="prediction at a = 2 is an extrapolation"):
        surrogate.predict({"a": 2.0}, given, 0.5)
    with pytest.warns(UserWarning, match="prediction at time = 3 is an extrapolation"):
        surrogate.predict({"a": 0.5}, given, [0.5, 3.0])
    with pytest.raises(DataError, match="each parameter is a single number"):
        surrogate.predict({"a": [0.1, 0.2]}, given, 0.5)

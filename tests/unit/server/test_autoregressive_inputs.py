"""The task `autoregressive` with input fields, which are the same at all steps of a simulation."""

import numpy as np
import pytest
import torch

from melissa_gen.builders.surrogate import build_surrogate, try_surrogate
from melissa_gen.builders.task import build_task
from melissa_gen.dataset import DatasetWriter
from melissa_gen.errors import DataError, StudyError
from melissa_gen.server.training.validation import Validation
from melissa_gen.surrogates import export, load, save
from melissa_gen.tasks import Autoregressive
from tests.unit.server.trainers import generator, study_of, trainer_of, world

__all__ = ["generator", "world"]

POINT = {"a": 0.5}


def study_with(shape=(6,), task=None, **surrogate):
    return study_of(
        simulation={"inputs": {"k": {"shape": list(shape)}}},
        training={"learning_rate": 0.01},
        surrogate={"task": {"class": "autoregressive", "arguments": task or {}}, **surrogate},
    )


NETWORKS = {
    "MLP": {},
    "UNet": {"class": "melissa_gen.surrogates.UNet", "arguments": {"width": 8, "levels": 1}},
    "heads": {"ensemble": {"kind": "heads"}},
}


@pytest.mark.parametrize("network", NETWORKS)
def test_steps_are_learned_from_fields_and_inputs(network):
    study = study_with(**NETWORKS[network])
    try_surrogate(study)
    trainer, _ = trainer_of(study)
    trainer.wait_for_first_samples()
    batch = trainer.draw(8)
    assert batch.fields["u"].shape == (8, 2, 6) and batch.fields["k"].shape == (8, 6)
    losses = [float(trainer.learn(batch, 8).mean()) for _ in range(60)]
    assert losses[-1] < 0.7 * losses[0]
    # The scale of the inputs is that of all simulations.
    assert float(trainer.surrogate.field_mean[0]) == pytest.approx(5.0 + 3.0 * 5.5 / 12)
    assert trainer.ranges["k"] == pytest.approx((5.0, 7.75))


def test_a_rank_without_data_takes_part_and_does_not_change_the_scale():
    trainer, _ = trainer_of(study_with(task={"predicts": "increment"}))
    trainer.learn(None, 8)
    assert all((w.grad == 0).all() for w in trainer.surrogate.parameters())
    assert trainer.surrogate.field_mean.tolist() == [0.0]
    assert all(torch.isfinite(t).all() for t in trainer.surrogate.state_dict().values())


def test_the_inputs_are_scaled_also_where_the_first_batch_is_at_rest():
    trainer, _ = trainer_of(study_with())
    trainer.wait_for_first_samples()
    batch = trainer.draw(8)
    u = trainer.rows.fields["u"]
    u.copy_(u[:, :1].clone().expand_as(u))
    trainer.learn(batch, 8)
    values = 5.0 + 3.0 * np.arange(12) / 12
    assert float(trainer.surrogate.field_mean[0]) == pytest.approx(values.mean())
    assert float(trainer.surrogate.field_std[0]) == pytest.approx(values.std())


class Add(torch.nn.Module):
    """Adds the input field to the last field."""

    def __init__(self, n_inputs, output_shape, history, input_shapes):
        super().__init__()
        assert (history, input_shapes, n_inputs) == (1, {"k": (4,)}, 9)
        self.factor = torch.nn.Parameter(torch.ones(()))

    def forward(self, inputs):
        return self.factor * inputs[:, 1:5] + inputs[:, 5:]


def sums_of(path, simulations=3, steps=5):
    """Trajectories that grow by the input of their simulation in each step."""
    fields, inputs = {"u": ((4,), "f4")}, {"k": ((4,), "f4")}
    with DatasetWriter(path, fields, steps, ["a"], simulations, {}, inputs=inputs) as writer:
        for row in range(simulations):
            k = np.arange(1, 5, dtype=np.float32) * (row + 1)
            writer.begin(row, row, [row / simulations], {"k": k})
            for step in range(steps):
                writer.write(row, step, "u", step * k)
            writer.finish(row)
    return path


def test_each_simulation_is_predicted_from_its_own_inputs(tmp_path):
    task = Autoregressive()
    surrogate = task.make_surrogate(
        parameters={"a": (0, 1)},
        times=(0, 4),
        time_steps=5,
        fields={"u": (4,)},
        inputs={"k": (4,)},
        class_path=f"{__file__}:Add",
    )
    for rows in (1, 2, 8):
        validation = Validation(sums_of(tmp_path / "d.h5"), torch.device("cpu"), rows, task=task)
        assert validation.errors(surrogate).total == pytest.approx(0.0, abs=1e-6)
    k = np.array([1.0, 2.0, 3.0, 4.0])
    found = surrogate.predict(POINT, {"u": np.zeros(4)}, 3, inputs={"k": k})["u"]
    np.testing.assert_allclose(found, [k, 2 * k, 3 * k], rtol=1e-6)
    slopes = surrogate.jacobian(POINT, {"u": np.zeros(4)}, 3, inputs={"k": k})["u"]
    np.testing.assert_allclose(slopes["k"], [n * np.eye(4) for n in (1, 2, 3)], atol=1e-6)
    np.testing.assert_allclose(slopes["u"], [np.eye(4)] * 3, atol=1e-6)
    along = surrogate.jacobian(POINT, {"u": np.zeros(4)}, 2, directions={"k": k}, inputs={"k": k})[
        "u"
    ]
    np.testing.assert_allclose(along["k"], [k, 2 * k], rtol=1e-6)


def test_a_saved_surrogate_predicts_and_is_exported_with_its_inputs(tmp_path):
    surrogate = build_surrogate(study_with()).eval()
    surrogate.set_input_scale([5.0], [5.0**0.5])
    save(surrogate, tmp_path / "model")
    loaded = load(tmp_path / "model")
    initial, k = {"u": np.linspace(0, 1, 6)}, {"k": np.arange(6.0)}
    found = loaded.predict(POINT, initial, 2, inputs=k)["u"]
    np.testing.assert_array_equal(found, surrogate.predict(POINT, initial, 2, inputs=k)["u"])
    assert np.abs(found - loaded.predict(POINT, initial, 2, inputs={"k": -k["k"]})["u"]).max() > 0
    program = torch.export.load(export(loaded, tmp_path / "step.pt2")).module()
    given = [torch.from_numpy(one).float() for one in (initial["u"], k["k"])]
    rows = (torch.full((1, 1), 0.5).double(), torch.zeros(1).double())
    answer = program(*rows, given[0][None, None], given[1][None])["u"]
    np.testing.assert_allclose(answer.detach()[0], found[0], rtol=1e-5, atol=1e-6)


def test_mistakes_are_one_sentence():
    surrogate, first = build_surrogate(study_with()), {"u": np.zeros(6)}
    with pytest.raises(DataError, match="inputs holds nothing; it must hold k, the inputs of the"):
        surrogate.predict(POINT, first, 2)
    with pytest.raises(DataError, match=r"inputs\['k'\] has the shape \(3,\); it must be \(6,\)"):
        surrogate.jacobian(POINT, first, inputs={"k": np.zeros(3)})
    without = build_surrogate(study_of(surrogate={"task": "autoregressive"}))
    with pytest.raises(DataError, match="inputs holds k; the surrogate has none"):
        without.predict(POINT, first, 2, inputs={"k": np.zeros(3)})
    study = study_with(shape=[5], **NETWORKS["UNet"])
    with pytest.raises(StudyError, match=r"simulation.inputs.k has the shape \[5\], which is not"):
        build_surrogate(study, build_task(study))

"""The task `pointwise`: training on drawn points, whole fields in the validation, files, and mistakes."""

import math

import numpy as np
import pytest
import torch

from melissa_gen.builders.memory import batch_megabytes
from melissa_gen.builders.surrogate import build_surrogate, try_surrogate
from melissa_gen.builders.task import build_task
from melissa_gen.dataset import DatasetWriter
from melissa_gen.errors import DataError, StudyError
from melissa_gen.server.training.validation import Validation
from melissa_gen.surrogates import PointSurrogate, export, load, save
from melissa_gen.surrogates.mesh_points import grid_points
from melissa_gen.tasks import Pointwise, Rows
from tests.unit.server.trainers import generator, study_of, trainer_of, world

__all__ = ["generator", "world"]


def study_with(arguments, fields=None, **sections):
    sections.setdefault("training", {"learning_rate": 0.01})
    task = {"class": "pointwise", "arguments": arguments}
    sections["surrogate"] = {"task": task, **sections.get("surrogate", {})}
    if fields:
        sections["simulation"] = {"fields": fields, **sections.get("simulation", {})}
    return study_of(**sections)


@pytest.mark.parametrize("loss", ["mse", "relative", "huber"])
@pytest.mark.parametrize("ensemble", [None, {"kind": "heads"}])
def test_drawn_points_are_learned(loss, ensemble):
    study = study_with(
        {"points": 4},
        training={"learning_rate": 0.01, "loss": loss},
        surrogate={"ensemble": ensemble, "arguments": {"activation": "tanh"}},
    )
    trainer, state = trainer_of(study)
    trainer.wait_for_first_samples()
    batch = trainer.draw(8)
    losses = [float(trainer.learn(batch, 8).mean()) for _ in range(100)]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])
    assert {n for n, *_ in state.take_first_pass()} <= set(range(12))


def test_all_points_give_the_loss_of_the_direct_comparison():
    study = study_with({"points": 100}, {"u": {"shape": [2, 3]}})
    task = build_task(study)
    surrogate = build_surrogate(study, task)
    surrogate.set_output_statistics({"u": 1.0}, {"u": 2.0})
    inputs = torch.tensor([[0.2, 1.0], [0.7, 3.0]], dtype=torch.float64)
    true = torch.arange(12.0).reshape(2, 2, 3)
    (compared,) = task.compare(surrogate, surrogate.network, Rows(inputs, {"u": true}), 0)
    whole = surrogate(inputs[:, :1], inputs[:, 1])["u"]
    assert compared.members.shape == (2, 1, 6) and compared.target.shape == (2, 6)
    error = (compared.members[:, 0] - compared.target) * 2.0
    torch.testing.assert_close(error.reshape(2, 2, 3), whole - true, rtol=1e-5, atol=1e-5)


def test_a_regular_grid_has_the_centers_of_its_cells():
    low, high = torch.tensor([0.0, -1.0]), torch.tensor([4.0, 1.0])
    found = grid_points(torch.arange(8), (4, 2), low, high)
    assert found.tolist() == [[x, y] for x in (0.5, 1.5, 2.5, 3.5) for y in (-0.5, 0.5)]


@pytest.mark.parametrize("channels", [None, "first", "last"])
def test_the_values_of_fields_are_found_at_their_points(channels):
    shape = {None: [4, 3], "first": [2, 4, 3], "last": [4, 3, 2]}[channels]
    study = study_with({"points": 5}, {"u": {"shape": shape, "channels": channels}})
    surrogate = build_surrogate(study)
    whole = torch.arange(2.0 * math.prod(shape)).reshape(2, *shape)
    index = torch.tensor([[0, 7, 11], [3, 3, 1]])
    found = surrogate.values_at("u", whole, index)
    grid = {None: whole, "first": whole.movedim(1, -1), "last": whole}[channels]
    for row in range(2):
        for place, number in enumerate(index[row].tolist()):
            wanted = grid[row, number // 3, number % 3]
            assert torch.equal(found[row, place], wanted)
    output = surrogate(torch.zeros(2, 1), torch.zeros(2))["u"]
    assert output.shape == (2, *shape)
    at = surrogate.at(torch.zeros(1, 1), torch.zeros(1), surrogate.coordinates_of(index[0, 1:2]))
    one = output[0].movedim(0, -1) if channels == "first" else output[0]
    torch.testing.assert_close(at["u"][0], one[2, 1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_a_mesh_from_a_file_is_saved_with_the_surrogate(tmp_path, suffix):
    places = np.random.default_rng(1).uniform(-2, 5, (6, 2))
    file = tmp_path / f"mesh{suffix}"
    np.save(file, places) if suffix == ".npy" else np.savetxt(file, places, delimiter=",")
    study = study_with({"points": 3, "coordinates": str(file)})
    surrogate = build_surrogate(study).eval()
    file.unlink()
    save(surrogate, tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert isinstance(loaded, PointSurrogate) and loaded.settings() == surrogate.settings()
    whole = surrogate.predict({"a": 0.5}, 1.0)["u"]
    np.testing.assert_allclose(loaded.predict({"a": 0.5}, 1.0)["u"], whole, rtol=1e-6)
    at = loaded.predict({"a": 0.5}, 1.0, places[2:4])["u"]
    np.testing.assert_allclose(at, whole[2:4], rtol=1e-5, atol=1e-6)
    with pytest.raises(DataError, match="it must be \\(k, 2\\), the values of x, y"):
        loaded.predict({"a": 0.5}, 1.0, [[1.0, 2.0, 3.0]])
    export(loaded, tmp_path / "field.pt2")
    program = torch.export.load(tmp_path / "field.pt2").module()
    row = torch.full((2, 1), 0.5, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    np.testing.assert_allclose(program(*row)["u"][1].detach(), whole, rtol=1e-5, atol=1e-6)


class Plane(torch.nn.Module):
    """Adds the inputs; knows how many of them are coordinates."""

    def __init__(self, n_inputs, output_shape, coordinates):
        super().__init__()
        assert (n_inputs, output_shape, coordinates) == (4, (), 2)
        self.weight = torch.nn.Parameter(torch.ones(n_inputs))

    def forward(self, inputs):
        return inputs @ self.weight


def test_the_validation_predicts_whole_fields(tmp_path):
    task = Pointwise(extent={"x": [-1, 1], "y": [-1, 1]})
    surrogate = task.make_surrogate(
        parameters={"a": (-1, 1)},
        times=(-1, 1),
        fields={"u": (4, 2)},
        class_path=f"{__file__}:Plane",
    )
    x, y = np.linspace(-0.75, 0.75, 4)[:, None], np.array([-0.5, 0.5])
    with DatasetWriter(tmp_path / "d.h5", {"u": ((4, 2), "f4")}, 3, ["a"], 2, {}, [-1, 0, 1]) as w:
        for row, a in enumerate((-0.5, 0.5)):
            w.begin(row, row, [a])
            for step, time in enumerate((-1, 0, 1)):
                w.write(row, step, "u", a + time + x + y)
            w.finish(row)
    validation = Validation(tmp_path / "d.h5", torch.device("cpu"), 2, task=task)
    assert validation.errors(surrogate).total == pytest.approx(0.0, abs=1e-6)


def test_the_domain_of_the_study_is_that_of_the_points():
    simulation = {"fields": {"u": {"shape": [6]}}, "domain": {"x": [2, 5]}}
    assert build_surrogate(study_with({}, simulation=simulation)).extent == {"x": (2.0, 5.0)}
    given = study_with({"extent": {"x": [0, 9]}}, simulation=simulation)
    assert build_surrogate(given).extent == {"x": (0.0, 9.0)}
    assert build_surrogate(study_with({})).extent == {"x": (0.0, 1.0)}


def test_the_memory_of_the_points_is_promised():
    few, many = (batch_megabytes(study_with({"points": points})) for points in (4096, 8192))
    assert many == pytest.approx(2 * few, rel=0.01)


def test_a_rank_without_data_takes_part():
    trainer, _ = trainer_of(study_with({"points": 3}))
    trainer.learn(None, 8)
    assert all((w.grad == 0).all() for w in trainer.surrogate.parameters())


@pytest.mark.parametrize(
    ("arguments", "sections", "sentence"),
    [
        ({"points": 0}, {}, "arguments.points is 0: legal are whole numbers from 1"),
        ({"extent": {"u": [0, 1]}}, {}, "the axis 'u'; legal are x, y, z"),
        ({"extent": {"x": [1, 0]}}, {}, "extent.x is \\[1, 0\\]: legal are \\[low, high\\]"),
        ({"coordinates": "none.npy"}, {}, "none.npy', which can't be read as .npy or .csv"),
        ({}, {"training": {"loss": "h1"}}, "training.loss h1, which needs neighbors"),
        ({}, {"sampler": {"difficulty": "gradient_norm"}}, "gradient_norm is not available"),
        (
            {},
            {"simulation": {"fields": {"u": {"shape": [6]}, "v": {"shape": [5]}}}},
            "fields on the same points, but simulation.fields.v has \\[5\\] points and u has \\[6\\]",
        ),
        (
            {},
            {"simulation": {"fields": {"u": {"shape": [2, 2, 2, 2]}}}},
            "more than three axes of points; set channels",
        ),
        (
            {"extent": {"y": [0, 1]}},
            {},
            r"extent\.y is \[0, 1\]: legal are the ends of x, the axes",
        ),
    ],
)
def test_a_mistake_is_one_sentence(arguments, sections, sentence):
    with pytest.raises(StudyError, match=sentence):
        try_surrogate(study_with(arguments, **sections))


def test_coordinates_of_other_points_are_refused(tmp_path):
    np.save(tmp_path / "mesh.npy", np.zeros((5, 2)))
    with pytest.raises(StudyError, match="holds an array \\(5, 2\\); legal are finite coordinates"):
        build_surrogate(study_with({"coordinates": str(tmp_path / "mesh.npy")}))


def test_a_mesh_file_that_is_missing_is_reported_with_the_key_that_names_it():
    study = study_with({}, simulation={"mesh": {"coordinates": "none.npy"}})
    with pytest.raises(StudyError, match=r"^simulation\.mesh\.coordinates is '.*none\.npy'"):
        build_surrogate(study)


@pytest.mark.parametrize(("a", "time", "name"), [([0.1, 0.2], 0.5, "'a'"), (0.1, [0.5], "time")])
def test_values_at_points_are_those_of_a_single_simulation_and_time(a, time, name):
    surrogate = build_surrogate(study_with({}))
    with pytest.raises(DataError, match=rf"{name} has the shape \(\d,\); .*single number"):
        surrogate.predict({"a": a}, time, [[0.0], [1.0]])


def test_derivatives_of_whole_fields_are_those_of_finite_differences():
    smooth = {"arguments": {"hidden": [16], "activation": "tanh"}}
    surrogate = build_surrogate(study_with({}, surrogate=smooth))
    found = surrogate.jacobian({"a": 0.5}, 1.0)["u"]
    ends = [surrogate.predict({"a": 0.5}, 1.0 + shift)["u"] for shift in (0.02, -0.02)]
    np.testing.assert_allclose(
        found["time"], (ends[0].astype(float) - ends[1]) / 0.04, rtol=2e-2, atol=2e-3
    )
    assert found["a"].shape == ends[0].shape

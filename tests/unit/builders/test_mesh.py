"""The mesh of a study: its files, the data set, the report's file, and pointwise networks."""

import h5py
import numpy as np
import pytest

from melissa_gen.builders.dataset import dataset_settings, dataset_writer
from melissa_gen.builders.mesh import read_mesh, write_coordinates
from melissa_gen.builders.surrogate import build_surrogate, try_surrogate
from melissa_gen.dataset import Dataset
from melissa_gen.errors import StudyError
from melissa_gen.study import load_study
from melissa_gen.surrogates import load, save

STUDY = """
name: small
parameters: {a: {distribution: uniform, low: 0, high: 1}}
simulation:
  command: [python, solver.py]
  count: 1
  time_steps: 2
  fields: {u: {shape: [4]}, v: {shape: [4, 2], channels: last}}
  mesh: {coordinates: points.csv, cells: cells.npy}
surrogate: {task: pointwise}
training: {batch_size: 1, validation: {simulations: 0}}
reservoir: {capacity: 4, watermark: 1}
"""
POINTS = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0]])
CELLS = np.array([[0, 1, 2], [0, 2, 3]])


@pytest.fixture
def study(tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "solver.py").touch()
    np.savetxt(tmp_path / "points.csv", POINTS, delimiter=",")
    np.save(tmp_path / "cells.npy", CELLS)
    return load_study(tmp_path / "study.yaml")


def test_the_mesh_is_in_the_data_set_and_its_points_are_in_the_run_directory(study, tmp_path):
    mesh = read_mesh(study)
    np.testing.assert_array_equal(mesh.cells, CELLS)
    with dataset_writer(study, tmp_path / "d.h5", {}, resume=False) as writer:
        writer.begin(0, 0, [0.5])
        writer.write_steps(0, 0, "u", np.zeros((2, 4)))
        writer.write_steps(0, 0, "v", np.zeros((2, 4, 2)))
        writer.finish(0)
    with Dataset(tmp_path / "d.h5") as data:
        assert list(data.fields) == ["u", "v"]
        np.testing.assert_array_equal(data.mesh["coordinates"], POINTS)
        np.testing.assert_array_equal(data.mesh["cells"], CELLS)
    write_coordinates(study, tmp_path)
    with h5py.File(tmp_path / "coordinates.h5") as file:
        np.testing.assert_array_equal(file["points"], POINTS)


def test_other_points_make_another_data_set(study, tmp_path):
    before = dataset_settings(study, 1, 0)
    np.savetxt(tmp_path / "points.csv", POINTS + 1, delimiter=",")
    assert dataset_settings(study, 1, 0) != before


def test_a_pointwise_network_gets_the_coordinates(study):
    surrogate = build_surrogate(study)
    whole = surrogate.predict({"a": 0.5}, 1.0)
    some = surrogate.predict({"a": 0.5}, 1.0, POINTS[1:3])
    np.testing.assert_allclose(whole["u"][1:3], some["u"], rtol=1e-5)


@pytest.mark.parametrize(
    ("points", "cells", "sentence"),
    [
        (POINTS[:3], CELLS, "coordinates has 3 points, but simulation.fields.u.shape [4] has [4]"),
        (POINTS * np.nan, CELLS, "which has NaN or infinity"),
        (np.zeros((4, 5)), CELLS, "which holds an array (4, 5); legal is (N, D)"),
        (POINTS, CELLS + 2, "the numbers of points, from 0 to 3"),
        (POINTS, CELLS + 0.5, "the numbers of points, from 0 to 3"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(study, tmp_path, points, cells, sentence):
    np.savetxt(tmp_path / "points.csv", points, delimiter=",")
    np.save(tmp_path / "cells.npy", cells)
    with pytest.raises(StudyError) as caught:
        read_mesh(study)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("domain", "sentence"),
    [
        ("{x: [0, 2], y: [0, 1]}", ""),
        ("{x: [0, 2]}", "domain has 1 axes, but the points in simulation.mesh.coordinates have 2"),
        (
            "{y: [0, 2], x: [0, 1]}",
            "simulation.domain has the axes y, x; legal are x, y, z in this",
        ),
    ],
)
def test_the_domain_has_the_axes_of_the_points(study, tmp_path, domain, sentence):
    try:
        read_mesh(load_study(tmp_path / "study.yaml", [f"simulation.domain={domain}"]))
        found = ""
    except StudyError as error:
        found = str(error)
    assert sentence in found and bool(found) == bool(sentence)


@pytest.mark.parametrize("key", ["coordinates", "cells"])
def test_a_file_that_is_missing_is_named(study, tmp_path, key):
    (tmp_path / ("points.csv" if key == "coordinates" else "cells.npy")).unlink()
    with pytest.raises(StudyError, match=f"simulation.mesh.{key} is .* can't be read as .npy or"):
        read_mesh(study)


def test_a_study_without_a_mesh_has_none(study):
    simulation = study.simulation.model_copy(update={"mesh": None})
    assert read_mesh(study.model_copy(update={"simulation": simulation})) is None


def deeponet_of(folder, *words):
    network = ["surrogate.task=direct", "surrogate.class=melissa_gen.surrogates.DeepONet"]
    fields = ["simulation.fields={u: {shape: [4]}, v: {shape: [4]}}"]
    arguments = "surrogate.arguments={mesh_axes: 2, basis: 8}"
    return load_study(folder / "study.yaml", [*network, *fields, arguments, *words])


def test_a_deeponet_is_trained_at_the_points_of_the_mesh_and_saved_with_them(study, tmp_path):
    changed = deeponet_of(tmp_path)
    try_surrogate(changed)
    surrogate = build_surrogate(changed)
    assert surrogate.network.coordinates.tolist() == (POINTS * [1, 2] - 1).tolist()
    found = surrogate.predict({"a": 0.5}, 0.5)["v"]
    assert found.shape == (4,) and len(set(found.tolist())) == 4
    save(surrogate, tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict({"a": 0.5}, 0.5)["v"], found)


def test_points_that_do_not_fit_a_deeponet_are_one_sentence(study, tmp_path):
    with pytest.raises(StudyError, match=r"array \(4, 2\), but .*mesh_axes 3 .* need \(4, 3\)"):
        build_surrogate(deeponet_of(tmp_path, "surrogate.arguments.mesh_axes=3"))
    with pytest.raises(StudyError, match="mesh_axes needs the points of a mesh: name their file"):
        build_surrogate(deeponet_of(tmp_path, "simulation.mesh=null"))
    with pytest.raises(StudyError, match="mesh_axes is 4: legal are 0 to 3"):
        build_surrogate(deeponet_of(tmp_path, "surrogate.arguments.mesh_axes=4"))

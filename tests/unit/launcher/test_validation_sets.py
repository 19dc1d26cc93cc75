"""Further validation sets: what a study may say, and those that are files."""

import json

import h5py
import numpy as np
import pytest
from rich.console import Console

from melissa_gen.builders.memory import promised_megabytes
from melissa_gen.dataset import Dataset, DatasetWriter
from melissa_gen.errors import DataError, StudyError
from melissa_gen.launcher.commands import validation_sets
from melissa_gen.launcher.commands.train import train_on_data
from melissa_gen.report.live import LiveView
from melissa_gen.study import load_study

KEY = "training.validation.sets"
RANDOM = np.random.default_rng(4).standard_normal((3, 5, 3)).astype(np.float32)


def study_with(study_file, **sets):
    words = [f"{KEY}.{name}={json.dumps(section)}" for name, section in sets.items()]
    return load_study(study_file, words)


@pytest.fixture
def made(tmp_path, study_file):
    """A file of three trajectories beside the study."""
    path = study_file.parent / "made.h5"
    with DatasetWriter(path, {"u": ((3,), "f4")}, 5, ["a", "b"], 3, {}) as writer:
        for row in range(3):
            writer.begin(row, row, [5.0 + row, -1.0])
            writer.write_steps(row, 0, "u", RANDOM[row])
            writer.finish(row)
    return path


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ({"far": {}}, "has one of parameters, points and file; found none of them"),
        (
            {"far": {"file": "d.h5", "points": [{"a": 1.0, "b": 1.0}]}},
            "has one of parameters, points and file; found points and file",
        ),
        ({"far": {"points": [{"a": 1.0}]}}, f"{KEY}.far has a point without 'b'"),
        (
            {"far": {"points": [{"a": 1.0, "b": 1.0, "c": 1.0}]}},
            f"{KEY}.far has the parameter 'c'; legal are a, b",
        ),
        (
            {"far": {"parameters": {"z": {"distribution": "uniform", "low": 0.0, "high": 1.0}}}},
            f"{KEY}.far has the parameter 'z'",
        ),
        (
            {"far": {"points": [{"a": 1.0, "b": 1.0}], "values": {"a": 1.0}}},
            "values are the parameters of a file",
        ),
        ({"prior": {"file": "d.h5"}}, "validation.sets has the name prior"),
    ],
)
def test_a_set_that_says_too_little_or_too_much_is_one_sentence(study_file, sets, words):
    with pytest.raises(StudyError) as error:
        study_with(study_file, **sets)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("decides=none", "is not a name in validation.sets; legal: far"),
    ],
)
def test_keys_that_contradict_the_sets(study_file, word, sentence):
    far = f'{KEY}.far={{"points": [{{"a": 1.0, "b": 1.0}}]}}'
    with pytest.raises(StudyError) as error:
        load_study(study_file, [far, f"training.validation.{word}"])
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (
            {"parameters": {"b": {"distribution": "uniform", "low": 0, "high": 3}}},
            f"{KEY}.far.parameters.b is uniform, which draws fractions, but the values of b are whole numbers",
        ),
        ({"points": [{"a": 5.0, "b": 1.5}]}, f"{KEY}.far has b = 1.5"),
        ({"file": "made.h5", "values": {"a": 5.0, "b": 0.5}}, f"{KEY}.far has b = 0.5"),
    ],
)
def test_whole_numbers_have_no_fractions_in_a_set(study_file, section, words):
    law = '{"distribution": "integer", "low": 0, "high": 3}'
    with pytest.raises(StudyError) as failure:
        load_study(study_file, [f"parameters.b={law}", f"{KEY}.far={json.dumps(section)}"])
    assert words in str(failure.value)
    legal = '{"parameters": {"b": {"distribution": "integer", "low": 4, "high": 9}}}'
    assert load_study(study_file, [f"parameters.b={law}", f"{KEY}.far={legal}"])


def test_without_a_set_of_the_prior_one_of_the_others_has_the_results(study_file, made, tmp_path):
    sets = [f'{KEY}.{name}={{"file": "made.h5", "simulations": 2}}' for name in ("far", "near")]
    none = "training.validation.simulations=0"
    study = load_study(study_file, [*sets, none, "training.until={nrmse.p99: 0.1}"])
    assert study.training.validation.measures and study.training.validation.main == "far"
    study = load_study(study_file, [*sets, none, "training.validation.decides=near"])
    assert study.training.validation.main == "near"
    validation_sets.make_sets(study, tmp_path, None, None)
    assert {one.name for one in tmp_path.glob("*.h5")} >= {
        "validation_far.h5",
        "validation_near.h5",
    }
    assert not (tmp_path / "validation.h5").exists()
    with pytest.raises(
        StudyError, match=r"validation.simulations is 0 and there are no validation.s"
    ):
        load_study(study_file, [none, "training.until={nrmse.p99: 0.1}"])


def test_all_sets_are_in_the_promised_memory(study_file):
    points = [{"a": 1.0, "b": 1.0}] * 20_000
    more = promised_megabytes(study_with(study_file, far={"points": points}))
    assert more - promised_megabytes(load_study(study_file)) == pytest.approx(20_000 * 60 / 1e6)


def test_the_first_trajectories_of_a_file_are_a_set(study_file, made, tmp_path):
    """Its points may be outside of the prior."""
    study = study_with(study_file, far={"file": "made.h5", "simulations": 2})
    validation_sets.check_sets(study)
    validation_sets.copy_file_sets(study, tmp_path)
    with Dataset(tmp_path / "validation_far.h5") as data:
        assert len(data) == 2 and data.names == ["a", "b"]
        np.testing.assert_array_equal(data.parameters, [[5.0, -1.0], [6.0, -1.0]])
        np.testing.assert_array_equal(data.read(1)["u"], RANDOM[1])


def published(path, layout):
    """Writes the trajectories in one of the layouts of PDEBench, which have no parameters."""
    with h5py.File(path, "w") as file:
        if layout == "seeds":
            for seed in (1, 0, 2):
                group = file.create_group(f"{seed:04}")
                group["data"] = RANDOM[seed][..., None]
                group["grid/t"], group["grid/x"] = np.arange(5.0), np.arange(3.0)
            return
        file["tensor" if layout == "tensor" else "u"] = RANDOM
        file["x-coordinate"], file["t-coordinate"] = np.arange(3.0), np.arange(6.0)
        if layout == "names":
            file["forcing"] = np.zeros((3, 3, 4), np.float32)


@pytest.mark.parametrize("layout", ["tensor", "names", "seeds"])
def test_a_file_of_pdebench_is_a_set_with_given_parameters(study_file, tmp_path, layout):
    published(study_file.parent / "burgers.hdf5", layout)
    section = {"file": "burgers.hdf5", "values": {"b": 1.5, "a": 0.1}}
    validation_sets.copy_file_sets(study_with(study_file, published=section), tmp_path)
    with Dataset(tmp_path / "validation_published.h5") as data:
        assert list(data.fields) == ["u"] and len(data) == 3
        np.testing.assert_array_equal(data.parameters, [[0.1, 1.5]] * 3)
        for row in range(3):
            np.testing.assert_array_equal(data.read(row)["u"], RANDOM[row])
        np.testing.assert_array_equal(data.times, np.arange(5.0))


def test_seeds_of_different_lengths_are_no_data_set(tmp_path):
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        file["0000/data"], file["0001/data"] = RANDOM[0], RANDOM[1][:4]
    with pytest.raises(
        DataError, match=r"/0000/data has the shape \(5, 3\), but /0001/data has \(4, 3\)"
    ):
        Dataset(tmp_path / "d.hdf5")


def test_distributions_of_a_set_meet_the_constraints(study_file):
    far = {"parameters": {"a": {"distribution": "uniform", "low": 5.0, "high": 6.0}}}
    words = [f"{KEY}.far={json.dumps(far)}", "constraints=['a < 1']"]
    with pytest.raises(StudyError, match=f"{KEY}.far.parameters: constraints 'a < 1' leave 0 of"):
        validation_sets.check_sets(load_study(study_file, words))


def test_distributions_of_a_set_need_those_of_the_study(study_file):
    far = {"parameters": {"a": {"distribution": "uniform", "low": 5.0, "high": 6.0}}}
    words = [f"{KEY}.far={json.dumps(far)}", "feasible_points=points.csv"]
    with pytest.raises(StudyError, match=f"{KEY}.far.parameters has no effect"):
        load_study(study_file, words)


@pytest.mark.parametrize("layout", ["tensor", "names", "seeds"])
def test_its_coordinates_and_times_are_read(tmp_path, layout):
    published(tmp_path / "d.hdf5", layout)
    with Dataset(tmp_path / "d.hdf5") as data:
        assert data.time_steps == 5 and list(data.coordinates) == ["x"]
        np.testing.assert_array_equal(data.times, np.arange(5.0))
        name = next(iter(data.fields))
        np.testing.assert_array_equal(data.read(2, slice(1, 3))[name], RANDOM[2, 1:3])


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"file": "burgers.hdf5"}, f"add them, for example {KEY}.far.values: {{a: 0.1, b: 0.1}}"),
        ({"file": "made.h5", "values": {"a": 1.0, "b": 1.0}}, f"remove {KEY}.far.values"),
        ({"file": "none.h5"}, "there is no such file or folder"),
        ({"file": "solver.py"}, "can't be read"),
    ],
)
def test_a_file_that_does_not_fit_is_one_sentence(study_file, made, section, words):
    published(study_file.parent / "burgers.hdf5", "tensor")
    with pytest.raises(DataError) as error:
        validation_sets.check_sets(study_with(study_file, far=section))
    assert words in str(error.value)


def test_times_must_be_those_of_the_study(study_file, made):
    words = [f'{KEY}.far={{"file": "made.h5"}}', "simulation.times.interval=0.5"]
    with h5py.File(made, "a") as file:
        file["t-coordinate"][...] = 3.0 * np.arange(5)
    with pytest.raises(
        DataError, match=r"has the physical times 0 to 12, but the study has 0 to 2"
    ):
        validation_sets.check_sets(load_study(study_file, words))


def test_training_on_data_solves_no_set(study_file, made):
    words = {
        "training.validation.simulations": 1,
        "parameters.a.high": 9.0,
        "parameters.b.low": -2.0,
    }
    study = load_study(study_file, {**words, f"{KEY}.far": {"points": [{"a": 1.0, "b": 1.0}]}})
    with pytest.raises(StudyError, match="far has to be solved, and melissa-gen train starts no"):
        train_on_data(study, [made], None, LiveView(Console(quiet=True)))

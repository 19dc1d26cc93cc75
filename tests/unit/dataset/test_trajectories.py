"""Several data set files as one sequence of trajectories, which are read in parts."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melissa_gen.builders.dataset import recorded_trajectories
from melissa_gen.dataset import DatasetWriter, Trajectories
from melissa_gen.errors import DataError
from melissa_gen.run_dir.purpose import Purpose
from melissa_gen.study import load_study
from tests.unit.small_study import write_small_study

STEPS = 5
NAMES = ["a", "b"]


def write(
    path, first, count, steps=STEPS, names=NAMES, incomplete=(), times=None, point=(0.5, 1.5)
):
    """Writes trajectories whose values are 10 * number + time step."""
    with DatasetWriter(path, {"u": ((3,), "f4")}, steps, names, count, {}, times) as writer:
        for row in range(count):
            writer.begin(row, first + row, point[: len(names)])
            for step in range(steps):
                writer.write(row, step, "u", np.full(3, 10 * (first + row) + step, np.float32))
            if row not in incomplete:
                writer.finish(row)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return [
        write(folder / "one.h5", 0, 3, incomplete=[1]),
        write(folder / "two.h5", 3, 2),
    ]


@settings(max_examples=30, deadline=None)
@given(
    order=st.lists(st.integers(0, 3), max_size=8),
    size=st.sampled_from([1, 12, 24, 36, 60, 1000]),
)
def test_each_trajectory_is_read_whole_in_any_order_and_parts_of_any_size(files, order, size):
    with Trajectories(files, lambda data: None, part_bytes=size) as data:
        assert len(data) == 4 and data.parameters.shape == (4, 2)
        for number in order:
            parts = [part["u"] for part in data.parts(number)]
            assert all(part.nbytes <= max(size, 12) for part in parts)
            simulation = [0, 2, 3, 4][number]
            expected = 10 * simulation + np.arange(STEPS)
            np.testing.assert_array_equal(np.concatenate(parts)[:, 0], expected)


def test_trajectories_can_be_left_out(files):
    with Trajectories(files, lambda data: None, without=[0, 2]) as data:
        assert len(data) == 2
        assert [next(data.parts(n))["u"][0, 0] for n in range(2)] == [20, 40]
    with pytest.raises(DataError, match="no complete trajectory"):
        Trajectories(files, lambda data: None, without=range(4))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return load_study(write_small_study(tmp_path_factory.mktemp("studies") / "study"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"names": ["a"]}, r"has the parameters \['a'\], but the study has \['a', 'b'\]"),
        ({"steps": 4}, "number of time steps: 4, but the study has 5"),
        ({"times": np.linspace(0, 7, 5)}, "has the physical times 0 to 7, but the study has 0 to"),
        ({"point": (3.0, 1.5)}, "'a': 3.0, 'b': 1.5}, which is outside the distributions"),
    ],
)
def test_files_of_another_study_are_refused_in_a_sentence(study, tmp_path, options, sentence):
    path = write(tmp_path / "other.h5", 0, 1, **options)
    with pytest.raises(DataError, match=sentence):
        recorded_trajectories(study, Purpose(data=[str(path)]))


def test_the_only_field_of_a_file_of_pdebench_is_that_of_the_study(study, tmp_path):
    with h5py.File(tmp_path / "pdebench.hdf5", "w") as file:
        file["tensor"] = np.ones((2, 5, 3), np.float32)
        file["parameters"] = np.array([[0.1, 1.1], [0.2, 1.2]])
        file["parameters"].attrs["names"] = NAMES
        file["t-coordinate"] = np.arange(6.0)
        file["x-coordinate"] = np.arange(3.0)
    purpose = Purpose(data=[str(tmp_path / "pdebench.hdf5")])
    with recorded_trajectories(study, purpose) as data:
        assert len(data) == 2 and list(next(data.parts(1))) == ["u"]

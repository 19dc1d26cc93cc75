import os
import resource
import subprocess

import h5py
import numpy as np
import pytest

from melissa_gen.dataset import Dataset, DatasetWriter
from melissa_gen.errors import DataError

FIELDS = {"u": ((4, 3), "f4"), "p": ((2,), "f8")}
ONE = {"u": ((4, 3), "f4")}


def trajectory(number, fields, steps=5):
    random = np.random.default_rng(number)
    return {n: random.normal(size=(steps, *s)).astype(t) for n, (s, t) in fields.items()}


def write(path, numbers, fields=ONE, steps=5, settings=None, names=("a", "b"), **options):
    settings = settings or {"seed": 1}
    with DatasetWriter(path, fields, steps, names, len(numbers), settings, **options) as writer:
        for row, number in enumerate(numbers):
            writer.begin(row, number, [number, -number][: len(names)])
            for name, values in trajectory(number, fields, steps).items():
                for step in range(steps):
                    writer.write(row, step, name, values[step])
            writer.finish(row)


def assert_holds(path, numbers, fields=ONE):
    with Dataset(path) as data:
        assert len(data) == len(numbers)
        assert data.simulations.tolist() == list(numbers)
        assert data.names == ["a", "b"]
        assert data.parameters.tolist() == [[n, -n] for n in numbers]
        for row, number in enumerate(numbers):
            found, true = data.read(row), trajectory(number, fields)
            assert found.keys() == true.keys()
            for name, values in found.items():
                assert values.dtype == fields[name][1]
                np.testing.assert_array_equal(values, true[name])


@pytest.mark.parametrize("fields", [ONE, FIELDS])
def test_written_data_is_read_back(fields, tmp_path):
    write(tmp_path / "d.h5", [7, 3, 9], fields)
    assert_holds(tmp_path / "d.h5", [7, 3, 9], fields)
    assert [p.name for p in tmp_path.iterdir()] == ["d.h5"]


def test_the_layout_is_pdebenchs(tmp_path):
    times, x, y = np.linspace(0, 1, 5), np.arange(4.0), np.arange(3.0)
    write(tmp_path / "d.h5", [0, 1], times=times, coordinates={"x": x, "y": y})
    with h5py.File(tmp_path / "d.h5") as file:
        assert file["u"].shape == (2, 5, 4, 3)
        assert file["tensor"] == file["u"]
        assert file["tensor"].dtype == np.float32
        for name, values in {"t": times, "x": x, "y": y}.items():
            np.testing.assert_array_equal(file[f"{name}-coordinate"], values)
        assert list(file["parameters"].attrs["names"]) == ["a", "b"]
    write(tmp_path / "e.h5", [0, 1], FIELDS)
    with h5py.File(tmp_path / "e.h5") as file:
        assert file["u"].shape == (2, 5, 4, 3)
        assert file["p"].shape == (2, 5, 2)


def test_files_of_pdebench_itself_can_be_read(tmp_path):
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["tensor"] = np.ones((3, 5, 8), "f4")
        file["t-coordinate"] = np.arange(6.0)
    with Dataset(tmp_path / "d.h5") as data:
        assert (len(data), data.time_steps, data.names, data.settings) == (3, 5, [], {})
        assert len(data.times) == 5
        assert data.read(2)["tensor"].shape == (5, 8)


def test_files_of_the_first_layout_can_be_read(tmp_path):
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["tensor"] = np.ones((3, 5, 8), "f4")
        file.attrs["fields"] = ["u"]
    with Dataset(tmp_path / "d.h5") as data:
        assert data.read(2)["u"].shape == (5, 8)


def test_a_file_of_a_newer_layout_is_named(tmp_path):
    write(tmp_path / "d.h5", [0])
    with h5py.File(tmp_path / "d.h5", "r+") as file:
        file.attrs["layout"] = 99
    with pytest.raises(DataError, match=r"written by a newer version of melissa_gen: .* layout 99"):
        Dataset(tmp_path / "d.h5")


@pytest.mark.parametrize(
    ("parameters", "fields", "time_steps", "sentence"),
    [
        (["a", "c"], ONE, 5, r"has the parameters \['a', 'b'\], but the study has \['a', 'c'\]"),
        (["a", "b"], FIELDS, 5, r"has the fields \['u'\], but the study has \['p', 'u'\]"),
        (["a", "b"], {"u": ((3, 4), "f4")}, 5, r"'u' with the shape \(4, 3\), but .* \(3, 4\)"),
        (["a", "b"], {"u": ((4, 3), "f8")}, 5, "'u' with the type float32, but .* float64"),
        (["a", "b"], ONE, 6, "time steps: 5, but the study has 6"),
    ],
)
def test_a_file_that_does_not_fit_the_study_is_named(
    parameters, fields, time_steps, sentence, tmp_path
):
    write(tmp_path / "d.h5", [0])
    with Dataset(tmp_path / "d.h5") as data:
        data.require(["a", "b"], ONE, 5)
        with pytest.raises(DataError, match=sentence):
            data.require(parameters, fields, time_steps)


def test_unfinished_rows_are_left_out(tmp_path):
    path = tmp_path / "d.h5"
    with DatasetWriter(path, ONE, 2, ["a"], 3, {}) as writer:
        for row in (2, 0):
            writer.begin(row, 10 + row, [row])
            writer.write(row, 0, "u", np.full((4, 3), row))
        with pytest.raises(DataError, match="step 1 of field 'u' is missing"):
            writer.finish(0)
        writer.write(2, 1, "u", np.full((4, 3), 2))
        writer.finish(2)
        with pytest.raises(DataError, match="already finished"):
            writer.begin(2, 12, [0])
        assert not path.exists()
    with Dataset(path) as data:
        assert data.simulations.tolist() == [12]
        assert (data.read(0)["u"] == 2).all()
        with pytest.raises(IndexError):
            data.read(1)
    with h5py.File(path) as file:
        assert file["complete"][...].tolist() == [False, False, True]


def test_a_new_attempt_starts_over(tmp_path):
    with DatasetWriter(tmp_path / "d.h5", ONE, 1, [], 1, {}) as writer:
        writer.begin(0, 5, [])
        writer.write(0, 0, "u", np.ones((4, 3)))
        writer.begin(0, 5, [])
        with pytest.raises(DataError, match="is missing"):
            writer.finish(0)


def test_a_failed_write_keeps_the_earlier_file(tmp_path):
    path = tmp_path / "d.h5"
    write(path, [1])
    with pytest.raises(ZeroDivisionError), DatasetWriter(path, ONE, 5, ["a"], 3, {}) as writer:
        writer.begin(0, 8, [0])
        raise ZeroDivisionError
    assert_holds(path, [1])
    write(path, [2])
    assert_holds(path, [2])


def test_long_settings_round_trip(tmp_path):
    settings = {"table": list(range(50_000)), "name": "é"}
    write(tmp_path / "d.h5", [1], settings=settings)
    with Dataset(tmp_path / "d.h5") as data:
        assert data.settings == settings


@pytest.mark.parametrize("keep", [0, 100, 3000, -1])
def test_a_truncated_file_is_explained(keep, tmp_path):
    path = tmp_path / "d.h5"
    write(path, range(20))
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    with pytest.raises(DataError, match=r"d\.h5 can't be read"):
        Dataset(path)


def test_other_files_are_explained(tmp_path):
    path = tmp_path / "d.h5"
    with pytest.raises(DataError, match="no such file"):
        Dataset(path)
    path.write_text("not HDF5" * 1000)
    with pytest.raises(DataError, match=r"d\.h5 can't be read"):
        Dataset(path)
    with h5py.File(path, "w") as file:
        file["something"] = 1
    with pytest.raises(DataError, match="neither 'tensor' nor named fields"):
        Dataset(path)
    with h5py.File(path, "w") as file:
        file["tensor"] = np.zeros((3, 5, 2))
        file["simulation"] = np.zeros(2)
    with pytest.raises(DataError, match="'simulation' in"):
        Dataset(path)
    with h5py.File(path, "w") as file:
        file["tensor"] = np.zeros((3, 5, 2))
        file.attrs["settings"] = "{"
    with pytest.raises(DataError, match=r"d\.h5 can't be read"):
        Dataset(path)


def test_wrong_writes_are_explained(tmp_path):
    with DatasetWriter(tmp_path / "d.h5", ONE, 2, ["a"], 1, {}) as writer:
        with pytest.raises(DataError, match="no field 'v'"):
            writer.write(0, 0, "v", np.zeros((4, 3)))
        with pytest.raises(DataError, match="holds steps 0 to 1"):
            writer.write(0, 2, "u", np.zeros((4, 3)))
        with pytest.raises(DataError, match=r"of shape \(4, 3\)"):
            writer.write(0, 0, "u", np.zeros((3, 4)))
        with pytest.raises(DataError, match="has parameters"):
            writer.begin(0, 0, [1, 2])


@pytest.mark.parametrize(
    ("fields", "options", "sentence"),
    [
        ({"parameters": ((1,), "f4")}, {}, "reserved"),
        ({}, {}, "reserved"),
        (ONE, {"times": [0.0]}, "needs 2 times"),
        (ONE, {"coordinates": {"x": [1, 2]}}, "coordinate 'x'"),
        (ONE, {"coordinates": {"w": [1, 2]}}, "coordinate 'w'"),
    ],
)
def test_sizes_that_do_not_fit_are_explained(fields, options, sentence, tmp_path):
    with pytest.raises(DataError, match=sentence):
        DatasetWriter(tmp_path / "d.h5", fields, 2, ["a"], 1, {}, **options)
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_names_the_file(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = DatasetWriter(tmp_path / "d.h5", {"u": ((1 << 20,), "f4")}, 4, [], 1, {})
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 21, hard))
        with pytest.raises(DataError, match=r"d\.h5\.partial can't be written"):
            writer.write(0, 3, "u", np.ones(1 << 20, "f4"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        writer.abandon()
    assert not (tmp_path / "d.h5").exists()


@pytest.mark.root
def test_a_full_disk_is_called_so(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        writer = DatasetWriter(tmp_path / "d.h5", {"u": ((1 << 16,), "f4")}, 8, [], 1, {})
        with pytest.raises(DataError, match=r"d\.h5\.partial can't be written: the disk is full"):
            for step in range(8):
                writer.write(0, step, "u", np.ones(1 << 16, "f4"))
            writer.close()
        (tmp_path / "d.h5.partial").unlink()
        writer.abandon()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_what_is_recorded_as_written_is_on_disk(tmp_path):
    path, synced = tmp_path / "d.h5", []

    def sync(place):
        files = sorted(one.name for one in tmp_path.iterdir())
        synced.append((place.relative_to(tmp_path).name, files))

    with DatasetWriter(path, ONE, 1, ["a"], 2, {}, sync=sync) as writer:
        for row in range(2):
            writer.begin(row, row, [0.5])
            writer.write(row, 0, "u", np.ones((4, 3)))
            writer.finish(row)
            assert writer.progress()["complete"] == list(range(row + 1))
            writer.sync()
    before = ("d.h5.partial", ["d.h5.partial"])
    assert synced == [before, before, before, ("", ["d.h5"])]


def test_inputs_are_stored_once_per_trajectory(tmp_path):
    path, inputs = tmp_path / "d.h5", {"k": ((3,), "f8")}
    with DatasetWriter(path, ONE, 5, ["a"], 2, {}, inputs=inputs) as writer:
        for row in (0, 1):
            with pytest.raises(DataError, match=r"has the inputs \{\}; .* holds \{'k': \(3,\)\}"):
                writer.begin(row, row, [0.5])
            writer.begin(row, row, [0.5], {"k": np.full(3, row + 0.5)})
            writer.write_steps(row, 0, "u", trajectory(row, ONE)["u"])
            writer.finish(row)
    with Dataset(path) as data:
        assert data.inputs == {"k": ((3,), np.dtype("f8"))}
        assert list(data.fields) == ["u"]
        assert data.read_inputs(1)["k"].tolist() == [1.5, 1.5, 1.5]
        data.require(["a"], ONE, 5, inputs)
        with pytest.raises(DataError, match="has no input 'mask', which the study needs"):
            data.require(["a"], ONE, 5, {"mask": ((3,), "f8")})
        with pytest.raises(DataError, match=r"the input 'k' with the shape \(3,\), but"):
            data.require(["a"], ONE, 5, {"k": ((4,), "f8")})

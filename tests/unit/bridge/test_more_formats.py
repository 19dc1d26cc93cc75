"""Files of Fortran and NetCDF, and patterns that match nothing."""

import h5py
import numpy as np
import pytest
from scipy.io import FortranFile, netcdf_file

from melissa_gen.bridge.readers import OutputError
from melissa_gen.bridge.readers.fortran import read_records
from tests.unit.bridge.test_readers import POINTS, STEPS, P, U, assert_reads, reader_of

ONE = {"u": {"shape": [4, 3]}}


@pytest.mark.parametrize("marker", [4, 8])
@pytest.mark.parametrize("order", ["<", ">"])
def test_fortran_records(tmp_path, order, marker):
    for step in range(STEPS):
        with FortranFile(tmp_path / f"out{step}", "w", header_dtype=f"{order}u{marker}") as file:
            file.write_record(np.array([4, 3, step], f"{order}i4"))
            file.write_record(U[step].T.astype(f"{order}f8"))
    dtype = "float64" if order == "<" else ">f8"
    section = {"format": "fortran", "files": "out*", "dtype": dtype, "fields": {"u": 1}}
    assert_reads(reader_of(tmp_path, section, fields=ONE), p=None)


def test_a_field_of_several_records(tmp_path):
    """As `do j = 1, 3; write(unit) u(:, j); end do` writes it."""
    for step in range(STEPS):
        with FortranFile(tmp_path / f"out{step}", "w") as file:
            for column in U[step].T:
                file.write_record(column.astype("f4"))
    section = {"format": "fortran", "files": "out*", "dtype": "float32"}
    assert_reads(reader_of(tmp_path, section, fields=ONE), p=None)


def test_a_record_in_parts_and_a_damaged_file(tmp_path):
    def framed(first, part, last):
        return (
            first.to_bytes(4, "little", signed=True)
            + part
            + last.to_bytes(4, "little", signed=True)
        )

    file = tmp_path / "out"
    file.write_bytes(framed(-3, b"abc", 3) + framed(2, b"de", -2) + framed(1, b"f", 1))
    assert read_records(file) == [b"abcde", b"f"]
    for damaged in (b"", b"abc", framed(3, b"abc", 2), framed(-3, b"abc", 3), framed(9, b"abc", 9)):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="no complete sequence of Fortran records"):
            read_records(file)


@pytest.mark.parametrize("version", [3, 4])
def test_netcdf(tmp_path, version):
    for step in range(STEPS):
        path = tmp_path / f"out{step}.nc"
        packed = np.round(P[step] * 2).astype("i2")
        if version == 3:
            with netcdf_file(path, "w") as file:
                for name, size in (("y", 4), ("x", 3), ("n", 5), ("d", 2)):
                    file.createDimension(name, size)
                file.createVariable("vel", "f8", ("y", "x"))[:] = U[step]
                variable = file.createVariable("p", "i2", ("n",))
                variable[:] = packed
                variable.scale_factor = 0.5
                file.createVariable("points", "f8", ("n", "d"))[:] = POINTS
        else:
            with h5py.File(path, "w") as file:
                file["vel"], file["p"], file["points"] = U[step], packed, POINTS
                file["p"].attrs["scale_factor"] = [0.5]
    section = {"format": "netcdf", "files": "out*.nc", "fields": {"u": "vel"}}
    reader = reader_of(tmp_path, section | {"coordinates": "points"})
    assert_reads(reader)
    np.testing.assert_array_equal(reader.read(0, True)["coordinates"], POINTS)


def test_missing_values_of_netcdf_are_nan(tmp_path):
    with h5py.File(tmp_path / "out0.nc", "w") as file:
        file["u"] = np.where(U[0] > 10, 9e36, U[0])
        file["u"].attrs["_FillValue"] = [9e36]
    reader = reader_of(tmp_path, {"format": "netcdf", "files": "out*.nc"}, fields=ONE)
    assert np.isnan(reader.read(0, True)["u"]).sum() == 1


def test_values_of_netcdf_that_were_never_written_are_nan(tmp_path):
    with h5py.File(tmp_path / "out0.nc", "w") as file:
        file["u"] = np.where(U[0] > 10, 9.969209968386869e36, U[0]).astype("f4")
    reader = reader_of(tmp_path, {"format": "netcdf", "files": "out*.nc"}, fields=ONE)
    assert np.isnan(reader.read(0, True)["u"]).sum() == 1


def test_brackets_are_plain_characters(tmp_path):
    folder = tmp_path / "run [1]" / "out[a]"
    folder.mkdir(parents=True)
    for step in range(STEPS):
        np.save(folder / f"u[{step}].npy", U[step])
    section = {"format": "numpy", "files": "out[a]/u[*].npy"}
    assert_reads(reader_of(tmp_path / "run [1]", section, fields=ONE), p=None)


@pytest.mark.parametrize("steps", ["files", "axis"])
def test_a_pattern_without_a_match_lists_the_existing_files(tmp_path, steps):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "u_0.npy").touch()
    section = {"format": "numpy", "files": "u_*.npy", "steps": steps}
    reader = reader_of(tmp_path, section, fields=ONE)
    assert reader.read(0, False) is None
    with pytest.raises(OutputError) as caught:
        reader.read(0, True)
    assert "no file matches simulation.bridge.reader.files 'u_*.npy'" in str(caught.value)
    assert "the command left results, results/u_0.npy in" in str(caught.value)


def write_fortran(path, values):
    with FortranFile(path, "w") as file:
        file.write_record(values.T)


def write_netcdf(path, values):
    with netcdf_file(path, "w") as file:
        for name, size in zip("yx", values.shape, strict=True):
            file.createDimension(name, size)
        file.createVariable("u", "f8", ("y", "x"))[:] = values


def write_hdf5(path, values):
    with h5py.File(path, "w") as file:
        file["u"] = values


WRITERS = {
    "numpy": ("npy", np.save),
    "hdf5": ("h5", write_hdf5),
    "netcdf": ("nc", write_netcdf),
    "fortran": ("bin", write_fortran),
    "binary": ("raw", lambda path, values: values.tofile(path)),
    "text": ("txt", lambda path, values: np.savetxt(path, values, fmt="%.3e")),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_half_written_file_is_read_again_and_is_an_error_at_the_end(tmp_path, kind):
    suffix, write = WRITERS[kind]
    path, section = tmp_path / f"u0.{suffix}", {"format": kind, "files": f"u*.{suffix}"}
    write(path, U[0])
    write(tmp_path / f"u1.{suffix}", U[1])
    whole = path.read_bytes()
    # Numbers and texts of numbers end within a number.
    path.write_bytes(whole[: {"binary": 45, "text": 27}.get(kind, len(whole) // 2)])
    reader = reader_of(tmp_path, section, fields=ONE)
    for _ in range(3):
        assert reader.read(0, False) is None
    with pytest.raises(OutputError, match=rf"^u0\.{suffix} can't be read: "):
        reader_of(tmp_path, section, fields=ONE).read(0, True)
    path.write_bytes(whole)
    assert reader.read(0, False) is None, "its size has just changed"
    np.testing.assert_array_equal(reader.read(0, False)["u"], U[0])


@pytest.mark.parametrize(("kind", "bytes_written"), [("binary", 48), ("text", 30)])
def test_a_file_with_some_of_its_values_is_read_again(tmp_path, kind, bytes_written):
    suffix, write = WRITERS[kind]
    path, section = tmp_path / f"u0.{suffix}", {"format": kind, "files": f"u*.{suffix}"}
    write(path, U[0])
    write(tmp_path / f"u1.{suffix}", U[1])
    whole = path.read_bytes()
    path.write_bytes(whole[:bytes_written])
    reader = reader_of(tmp_path, section, fields=ONE)
    for _ in range(3):
        assert reader.read(0, False) is None
    # The client reports the shape.
    assert reader_of(tmp_path, section, fields=ONE).read(0, True)["u"].size < U[0].size
    path.write_bytes(whole)
    assert reader.read(0, False) is None, "its size has just changed"
    np.testing.assert_array_equal(reader.read(0, False)["u"], U[0])

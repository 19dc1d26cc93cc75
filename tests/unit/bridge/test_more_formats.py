"""Files of Fortran and NetCDF, numbers of any language, and patterns that match nothing."""

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import FortranFile, netcdf_file

from melissa_gen.bridge.readers import OutputError
from melissa_gen.bridge.readers.fortran import read_records
from melissa_gen.bridge.readers.numbers import number
from tests.unit.bridge.test_readers import POINTS, STEPS, P, U, assert_reads, reader_of

ONE = {"u": {"shape": [4, 3]}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.0D+03", 1e3),
        ("-1.5d-3", -1.5e-3),
        ("1.0+103", 1e103),
        ("2.5-101", 2.5e-101),
        (".5Q0", 0.5),
        ("0x1.8p+1", 3.0),
        ("-0X1P-2", -0.25),
        ("1e5f", 1e5),
        ("2.f", 2.0),
        ("3L", 3.0),
        ("Infinity", np.inf),
        ("-inf", -np.inf),
        ("+INF", np.inf),
        (" 7 ", 7.0),
    ],
)
def test_a_number_is_read_as_any_language_prints_it(text, value):
    assert number(text) == value


@pytest.mark.parametrize("text", ["NaN", "-nan", "nan(0x8)", "NAN"])
def test_nan(text):
    assert np.isnan(number(text))


@pytest.mark.parametrize("text", ["", "x", "1_000", "****", "1.0.0", "12-3", "nanny", "f"])
def test_invalid_numbers_are_refused(text):
    with pytest.raises(ValueError, match="is not a number"):
        number(text)


@given(st.floats(allow_nan=False))
def test_every_number_round_trips(value):
    assert number(repr(value)) == value
    assert number(f"{value:.17E}".replace("E", "D")) == value
    assert number(value.hex()) == value


def test_columns_of_a_fortran_program(tmp_path):
    for step in range(STEPS):
        rows = [f"  {value:.17E}".replace("E", "D") for value in P[step]]
        (tmp_path / f"p{step}.txt").write_text("p\n" + "\n".join(rows))
    reader = reader_of(tmp_path, {"format": "csv", "files": "p*.txt"}, fields={"p": {"shape": [5]}})
    assert_reads(reader, u=None)


@pytest.mark.parametrize("order", ["<", ">"])
def test_fortran_records(tmp_path, order):
    for step in range(STEPS):
        with FortranFile(tmp_path / f"out{step}", "w", header_dtype=f"{order}u4") as file:
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

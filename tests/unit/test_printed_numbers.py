"""Numbers as programs print them: the values that real writers print are read back."""

import ctypes
import io
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melissa_gen.printed_numbers import number, numbers, repeated

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.0D+03", 1e3),
        ("-1.5d-3", -1.5e-3),
        ("1.0+103", 1e103),
        ("2.5-101", 2.5e-101),
        (".5Q0", 0.5),
        ("-.5", -0.5),
        ("5.", 5.0),
        ("0x1.8p+1", 3.0),
        ("-0X1P-2", -0.25),
        ("1e5f", 1e5),
        ("2.f", 2.0),
        ("3L", 3.0),
        ("1.5f-5", 1.5e-5),
        ("Infinity", np.inf),
        ("-inf", -np.inf),
        ("+INF", np.inf),
        ("-Inf32", -np.inf),
        ("-1.#INF00", -np.inf),
        (" 7 ", 7.0),
    ],
)
def test_numbers_of_any_language_are_read(text, value):
    assert number(text) == value


@pytest.mark.parametrize("text", ["NaN", "-nan", "nan(0x8)", "NAN", "NaN32", "1.#QNAN0", "-1.#IND"])
def test_nan_is_read_in_all_its_forms(text):
    assert np.isnan(number(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1.0.0",
        "12-3",
        "nanny",
        "f",
        "0x",
        "0x1p9999",
        "(1.0,2.0)",
        "1.5*^-8",
        "T",
    ],
)
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match=r"is not a number$"):
        number(text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("****", "a Fortran format is too narrow"),
        ("1,5", "decimal commas are not read"),
        ("-1,5e3", "decimal commas are not read"),
        ("1,234.5", "groups of digits are not read"),
        ("1_000", "groups of digits are not read"),
        ("1'000", "groups of digits are not read"),
        ("1.234.567,0", "groups of digits are not read"),
    ],
)
def test_a_refusal_explains_stars_and_locales(text, hint):
    with pytest.raises(ValueError, match=f"is not a number; {hint}"):
        number(text)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("1.0, 2.0", [1.0, 2.0]),
        ("  1.0  2.0  ", [1.0, 2.0]),
        ("1.0,2.0,", [1.0, 2.0]),
        ("3*0.5, 2*1.0D+03", [0.5, 0.5, 0.5, 1e3, 1e3]),
        ("1;\t2 3", [1.0, 2.0, 3.0]),
    ],
)
def test_a_line_of_numbers(line, found):
    assert numbers(line) == found


def test_missing_values_are_refused():
    with pytest.raises(ValueError, match="missing between two commas"):
        numbers("1.0,,2.0")
    with pytest.raises(ValueError, match="is not a number"):
        repeated("3*")


@given(FINITE)
def test_numbers_that_python_julia_and_matlab_print(value):
    assert number(repr(value)) == value
    assert number(value.hex()) == value
    assert number(f"{value:.17E}".replace("E", "D")) == value
    single = float(np.float32(np.clip(value, -1e38, 1e38)))
    assert np.float32(number(f"{single:.9e}".replace("e", "f"))) == np.float32(single), "Julia"
    assert number(f"{value:25.16e}") == pytest.approx(value, rel=1e-15), "MATLAB"


@given(FINITE, st.sampled_from([b"%.17g", b"%a", b"%.17E", b"%+.17e", b"%# .17g"]))
def test_numbers_that_c_prints(value, template):
    text = ctypes.create_string_buffer(400)
    ctypes.CDLL(None).snprintf(text, 400, template, ctypes.c_double(value))
    assert number(text.value.decode()) == value


@given(st.lists(FINITE, min_size=1, max_size=8))
def test_rows_that_numpy_and_pandas_write(values):
    for delimiter in (" ", ",", ", ", ";", "\t"):
        text = io.StringIO()
        np.savetxt(text, [values], fmt="%.17e", delimiter=delimiter)
        assert numbers(text.getvalue()) == values
    assert numbers(pd.DataFrame([values]).to_csv(header=False, index=False)) == values


FORTRAN = """
program writer
    use, intrinsic :: iso_fortran_env, only: real64
    real(real64) :: x(300)
    integer :: i
    read (*, *) x
    do i = 1, 300
        print *, x(i)
        print "(es26.17)", x(i)
        print "(d26.17)", x(i)
        print "(es26.17e3)", x(i)
        print "(g0)", x(i)
    end do
    print *, x
end program writer
"""


@pytest.fixture
def fortran(tmp_path):
    """Returns the lines that a Fortran program prints of 300 numbers."""
    compiler = shutil.which("gfortran")
    if compiler is None:
        pytest.skip("gfortran is not here: apt-get install gfortran")
    (tmp_path / "writer.f90").write_text(FORTRAN)
    program = tmp_path / "writer"
    subprocess.run([compiler, tmp_path / "writer.f90", "-o", program], check=True, cwd=tmp_path)

    def printed(values):
        text = " ".join(map(repr, values))
        done = subprocess.run([program], input=text, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    return printed


def test_numbers_that_fortran_prints(fortran):
    random = np.random.default_rng(1)
    values = random.normal(size=300) * 10.0 ** random.uniform(-300, 300, 300)
    values[:3] = 0.0, -1.0, 0.5
    lines = fortran(values.tolist())
    single = [number(line) for line in lines[:1500]]
    np.testing.assert_allclose(np.reshape(single, (300, 5)).T, [values] * 5, rtol=1e-15)
    together = [value for line in lines[1500:] for value in numbers(line)]
    np.testing.assert_allclose(together, values, rtol=1e-15)

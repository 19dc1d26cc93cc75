"""Values of solvers by class: converted if that is safe, else refused with a sentence."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from melissa_gen.client.solver_values import real_array
from melissa_gen.protocol.failures import Failure

PLAIN = np.arange(6.0).reshape(2, 3)


class Quantity(np.ndarray):
    """As astropy's: an array whose class carries a unit."""

    unit = "m / s"


class Masked(np.ndarray):
    """As astropy's masked arrays, which do not derive from those of NumPy."""

    mask = PLAIN > 3


class Learned(torch.Tensor):
    """A tensor class of a solver."""


class Magnitude:
    """As pint's: an object with a magnitude and units."""

    magnitude = PLAIN
    units = "kelvin"


def mapped(folder, values):
    np.save(folder / "values.npy", values)
    return np.load(folder / "values.npy", mmap_mode="r")


def read_only(values):
    copy = values.copy()
    copy.flags.writeable = False
    return copy


@pytest.mark.parametrize(
    "values",
    [
        PLAIN.tolist(),
        tuple(map(tuple, PLAIN.tolist())),
        [torch.tensor(row) for row in PLAIN],
        PLAIN[::-1, ::-1].copy()[::-1, ::-1],
        np.repeat(PLAIN, 2, axis=1)[:, ::2],
        np.broadcast_to(PLAIN, (4, 2, 3))[0],
        read_only(PLAIN),
        PLAIN.astype(np.float16),
        PLAIN.astype(np.longdouble),
        PLAIN.astype(np.uint64),
        torch.tensor(PLAIN).half(),
        torch.tensor(PLAIN).to_sparse(),
        torch.tensor(PLAIN.T.copy()).T,
        torch.nn.Parameter(torch.tensor(PLAIN)),
        torch.tensor(PLAIN, requires_grad=True).as_subclass(Learned),
        pd.DataFrame(PLAIN).convert_dtypes(),
        np.asfortranarray(PLAIN),
        np.ma.masked_array(PLAIN, mask=False),
        torch.tensor(PLAIN),
        torch.tensor(PLAIN, requires_grad=True),
        torch.tensor(PLAIN, dtype=torch.bfloat16),
        pd.DataFrame(PLAIN),
        sparse.csr_array(PLAIN),
        PLAIN.astype(">f8"),
        PLAIN.astype(np.int16),
    ],
    ids=lambda values: type(values).__name__,
)
def test_convertible_values_are_converted(values):
    np.testing.assert_array_equal(real_array(values, field="u"), PLAIN)


def test_memory_maps_and_quantities_without_unit_are_converted(tmp_path):
    np.testing.assert_array_equal(real_array(mapped(tmp_path, PLAIN), field="u"), PLAIN)
    pint = pytest.importorskip("pint")
    np.testing.assert_array_equal(real_array(pint.Quantity(PLAIN, ""), field="u"), PLAIN)


def test_missing_values_of_pandas_are_nan():
    frame = pd.DataFrame(PLAIN).convert_dtypes()
    frame.iloc[0, 0] = pd.NA
    assert np.isnan(real_array(frame, field="u")).sum() == 1


@pytest.mark.parametrize(
    ("values", "code", "said"),
    [
        (
            np.ma.masked_array(PLAIN, mask=PLAIN > 3),
            "masked",
            "is a masked array with 2 masked values",
        ),
        (PLAIN.view(Quantity), "has_unit", "carries the unit m / s"),
        (Magnitude(), "has_unit", "carries the unit kelvin"),
        ([PLAIN[0].view(Quantity), PLAIN[1]], "has_unit", "carries the unit m / s"),
        (PLAIN.view(Masked), "masked", "is a masked array with 2 masked values"),
        ([np.ma.masked_less(row, 3) for row in PLAIN], "masked", "with 3 masked values"),
        ([[0.0, np.ma.masked]], "masked", "with 1 masked values"),
        (PLAIN.astype(object), "not_real", "object"),
        (PLAIN + 0j, "not_real", "complex128"),
        ("text", "not_real", "<U4"),
        ([[1.0], [1.0, 2.0]], "no_array", "of type list can't be read as an array: ValueError"),
        (torch.tensor(PLAIN, dtype=torch.complex64), "not_real", "complex64"),
        (pd.DataFrame({"a": ["x", "y"]}), "not_real", "real numbers are expected"),
        (PLAIN.astype("M8[s]"), "not_real", "datetime64"),
        (PLAIN > 3, "not_real", "bool"),
        (None, "not_real", "object"),
    ],
)
def test_lossy_conversions_are_refused(values, code, said):
    failure = real_array(values, simulation=3, step=1, field="u")
    assert isinstance(failure, Failure)
    assert failure.code == code
    assert str(failure).startswith("simulation 3, time step 1: field 'u' ")
    assert said in str(failure)


def test_a_description_is_no_unit():
    """A class that only describes plain numbers, as xarray's and netCDF's do."""

    class Described:
        units = "K"

        def __array__(self, dtype=None, copy=None):
            return PLAIN

    np.testing.assert_array_equal(real_array(Described(), field="u"), PLAIN)


def test_the_numbers_in_nested_lists_cost_few_calls():
    calls = []
    values = [[0.5] * 1000, [1] * 1000]
    sys.setprofile(lambda frame, event, argument: event == "call" and calls.append(frame))
    try:
        found = real_array(values, field="u")
    finally:
        sys.setprofile(None)
    np.testing.assert_array_equal(found, values)
    assert len(calls) < 3 * 2000

"""Turns what a solver hands over into an array of real numbers, or says why it can't be used as it is.

An array class may carry more than its buffer: a mask, a unit, a device, a gradient. What can be converted without a
doubt is converted; what would change its meaning is refused.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from melissa_gen.protocol.failures import Failure

__all__ = ["real_array"]

# Types without unit and mask; nested lists may have millions of them.
_NUMBERS = frozenset({float, int})
_PLAIN_UNITS = ("", "dimensionless", "1.0 dimensionless", "None")


def real_array(values: Any, **where: Any) -> npt.NDArray[Any] | Failure:
    """Returns the values as an array; strides and order of the memory are those of the solver.

    Args:
        values: An array of any class, or nested lists of numbers.
        **where: Values of the failure: the field, and where they are known the simulation and the time step.

    Returns:
        The array, or the failure: masked values, a unit, a class that NumPy can't read, or values that are not real
        numbers.
    """
    if type(values) is np.ndarray and values.dtype.kind in "fiu":
        # The common case, which needs none of what follows.
        return values
    unit = _first_unit(values)
    if unit not in _PLAIN_UNITS:
        return Failure.of("has_unit", **where, unit=unit)
    try:
        plain = _on_the_host(values)
        if masked := _masked(plain):
            return Failure.of("masked", **where, count=masked)
        array = np.asarray(plain)
    except Exception as error:
        kind = f"{type(values).__module__}.{type(values).__qualname__}".removeprefix("builtins.")
        return Failure.of("no_array", **where, type=kind, text=f"{type(error).__name__}: {error}")
    if array.dtype.kind not in "fiu":
        return Failure.of("not_real", **where, dtype=str(array.dtype))
    return array


def _first_unit(values: Any) -> str:
    """Returns the unit of the values or, in lists, of the first item that has one, as text; else ""."""
    if type(values) in _NUMBERS:
        return ""
    if isinstance(values, list | tuple):
        return next(filter(None, map(_first_unit, values)), "")
    if "xarray" in _packages(values):
        # The data, not the attributes, are what may carry a unit.
        values = values.data
    return _unit(values)


def _unit(values: Any) -> str:
    """Returns the unit of a quantity as text, else "".

    A quantity is a subclass of an array with `unit` (astropy) or `units` (unyt, quantities), or a magnitude with
    `units` (pint). Other classes have units as a mere description of plain numbers.
    """
    if type(values) is np.ndarray or not (
        isinstance(values, np.ndarray) or hasattr(values, "magnitude")
    ):
        return ""
    unit = str(getattr(values, "unit", getattr(values, "units", "")))
    return "" if unit in _PLAIN_UNITS else unit


def _masked(values: Any) -> int:
    """Returns how many values are masked: in masked arrays, in arrays with a `mask`, and in lists of either."""
    if type(values) in _NUMBERS:
        return 0
    if isinstance(values, list | tuple):
        return sum(map(_masked, values))
    if isinstance(values, np.ma.MaskedArray):
        return int(np.count_nonzero(np.ma.getmaskarray(values)))
    if values is np.ma.masked:
        return 1
    mask = getattr(values, "mask", None) if isinstance(values, np.ndarray) else None
    return 0 if mask is None else int(np.count_nonzero(mask))


def _packages(values: Any) -> set[str]:
    """Returns the packages that define the class of the values and its base classes."""
    return {one.__module__.partition(".")[0] for one in type(values).__mro__}


def _on_the_host(values: Any) -> Any:
    """Returns the values of a tensor, a device array, a quantity or a sparse matrix as NumPy can read them."""
    packages = _packages(values)
    if "torch" in packages:
        dense = values if str(values.layout) == "torch.strided" else values.to_dense()
        plain = dense.detach().cpu().resolve_conj().resolve_neg()
        return (plain.float() if str(plain.dtype) == "torch.bfloat16" else plain).numpy()
    if "cupy" in packages:
        return values.get()
    if "scipy" in packages and hasattr(values, "toarray"):
        return values.toarray()
    if "pint" in packages:
        return values.magnitude
    if "netCDF4" in packages:
        # The class itself converts to an array in which missing values are numbers.
        return values[...]
    if "pandas" in packages and all(kind.kind in "fiu" for kind in np.ravel(values.dtypes)):
        # Nullable columns would become objects.
        return values.to_numpy(np.float64, na_value=np.nan)
    return values

"""Turns what a solver hands over into an array of real numbers, or says why it can't be used as it is.

An array class may carry more than its buffer: a mask, a unit, a device, a gradient. What can be converted without a
doubt is converted; what would change its meaning is refused.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from melissa_gen.protocol.failures import Failure

__all__ = ["real_array"]

_PLAIN_UNITS = ("", "dimensionless", "None")


def real_array(values: Any, **where: Any) -> npt.NDArray[Any] | Failure:
    """Returns the values as an array; strides and order of the memory are those of the solver.

    Args:
        values: An array of any class, or nested lists of numbers.
        **where: Values of the failure: the field, and where they are known the simulation and the time step.

    Returns:
        The array, or the failure: masked values, a unit, a class that NumPy can't read, or values that are not real
        numbers.
    """
    unit = _unit(values)
    if unit not in _PLAIN_UNITS:
        return Failure.of("has_unit", **where, unit=unit)
    try:
        plain = _on_the_host(values)
        masked = 0
        if isinstance(plain, np.ma.MaskedArray):
            masked = int(np.count_nonzero(np.ma.getmaskarray(plain)))
        array = np.asarray(plain)
    except Exception as error:
        kind = f"{type(values).__module__}.{type(values).__qualname__}".removeprefix("builtins.")
        return Failure.of("no_array", **where, type=kind, text=f"{type(error).__name__}: {error}")
    if masked:
        return Failure.of("masked", **where, count=masked)
    if array.dtype.kind not in "fiu":
        return Failure.of("not_real", **where, dtype=str(array.dtype))
    return array


def _unit(values: Any) -> str:
    """Returns the unit of a quantity as text, else "".

    A quantity is a subclass of an array with `unit` (astropy) or `units` (unyt, quantities), or a magnitude with
    `units` (pint). Other classes have units as a mere description of plain numbers.
    """
    if type(values) is np.ndarray or not (
        isinstance(values, np.ndarray) or hasattr(values, "magnitude")
    ):
        return ""
    return str(getattr(values, "unit", getattr(values, "units", "")))


def _on_the_host(values: Any) -> Any:
    """Returns the values of a tensor, a device array, a quantity or a sparse matrix as NumPy can read them."""
    package = type(values).__module__.partition(".")[0]
    if package == "torch":
        plain = values.detach().cpu()
        return (plain.float() if str(plain.dtype) == "torch.bfloat16" else plain).numpy()
    if package == "cupy":
        return values.get()
    if package == "scipy" and hasattr(values, "toarray"):
        return values.toarray()
    if package == "pint":
        return values.magnitude
    if package == "netCDF4":
        # The class itself converts to an array in which missing values are numbers.
        return values[...]
    return values

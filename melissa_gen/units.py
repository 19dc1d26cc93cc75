"""Quantities with units: `5 min` as a duration, `2 GB` as a size, and the names of physical units."""

import functools
import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

__all__ = ["Duration", "Size", "Unit"]

COMMON = {
    *("m", "mm", "cm", "km", "um", "nm", "s", "ms", "us", "min", "h", "d", "g", "kg", "mg", "t"),
    *("K", "degC", "A", "mol", "cd", "rad", "deg", "Hz", "kHz", "MHz", "N", "kN", "L", "l"),
    *("Pa", "kPa", "MPa", "GPa", "bar", "J", "kJ", "MJ", "eV", "W", "kW", "MW", "V", "C", "F", "T"),
}
"""Units that need no look-up: loading the definitions of all units takes a third of a second in each process."""
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_POWER = re.compile(r"([A-Za-z]+)(?:(?:\^|\*\*)-?\d)?")
_QUANTITY = re.compile(r"\s*([-+0-9.eE]+)\s*(.*?)\s*")
_SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@functools.cache
def _registry() -> Any:
    # Importing pint takes half a second, so it is imported only where a unit is used.
    import pint

    return pint.UnitRegistry()


def _split(value: str) -> tuple[float, str] | None:
    match = _QUANTITY.fullmatch(value)
    try:
        return (float(match[1]), match[2]) if match else None
    except ValueError:
        return None


def _duration(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    example = "write seconds as a number, or for example '90 s', '5 min' or '2 h'"
    parts = _split(value)
    if parts is None or not parts[1]:
        msg = f"is not a duration; {example}"
        raise ValueError(msg)
    if parts[1] in SECONDS:
        return parts[0] * SECONDS[parts[1]]
    try:
        unit = _registry().Unit(parts[1])
    except Exception:
        msg = f"has the unknown unit '{parts[1]}'; {example}"
        raise ValueError(msg) from None
    if unit.dimensionality != {"[time]": 1}:
        msg = f"has the unit '{parts[1]}', which is not a unit of time; {example}"
        raise ValueError(msg)
    return float(_registry().Quantity(parts[0], unit).to("second").magnitude)


def _size(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    parts = _split(value)
    if parts is None or parts[1] not in _SIZES:
        msg = f"is not a memory size; write a number with one of the units {', '.join(_SIZES)}"
        raise ValueError(msg)
    size = parts[0] * _SIZES[parts[1]]
    return int(size) if math.isfinite(size) else size


def _is_common(value: str) -> bool:
    """Whether a unit is a product or quotient of powers of common units, such as `kg/m^3`."""
    factors = re.split(r"(?<!\*)\*(?!\*)|/", value.removeprefix("1/"))
    powers = [_POWER.fullmatch(factor.strip()) for factor in factors]
    return all(power is not None and power[1] in COMMON for power in powers)


def _unit(value: Any) -> Any:
    if isinstance(value, str) and value not in ("", "1") and not _is_common(value):
        try:
            _registry().Unit(value)
        except Exception:
            msg = "is not a known unit; write for example K, m, m/s, Pa, kg/m^3 or 1"
            raise ValueError(msg) from None
    return value


Duration = Annotated[float, BeforeValidator(_duration), Field(gt=0)]
Size = Annotated[int, BeforeValidator(_size), Field(gt=0)]
Unit = Annotated[str, BeforeValidator(_unit)]

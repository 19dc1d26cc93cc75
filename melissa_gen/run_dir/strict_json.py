"""JSON that every reader accepts: Python would write NaN and infinities as bare words, which are not JSON."""

import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["plain", "strict_json"]


def strict_json(value: Any, indent: int | None = None) -> str:
    """Returns a value as JSON; NaN and infinities become null.

    Args:
        value: The value; see `plain` for what is converted.
        indent: Spaces of each level, or None for one line.
    """
    return json.dumps(plain(value), allow_nan=False, indent=indent)


def plain(value: Any) -> Any:
    """Converts a value to JSON types: arrays to lists, NaN and infinities to None."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy arrays and scalars, torch tensors
        return plain(value.tolist())
    return str(value)

"""Nested values with arrays, as JSON types and arrays beside them; without pickle."""

import io
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["joined_arrays", "packed", "split_arrays", "unpacked"]


def split_arrays(value: Any) -> tuple[Any, dict[str, np.ndarray[Any, Any]]]:
    """Returns a nested value in JSON types, and its arrays by name; inverse of `joined_arrays`."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    return _split(value, "", arrays), arrays


def joined_arrays(value: Any, arrays: Mapping[str, Any]) -> Any:
    """Returns the nested value that `split_arrays` has split."""
    if isinstance(value, dict):
        if set(value) == {"npz"}:
            return arrays[value["npz"]]
        if set(value) == {"float"}:
            return float(value["float"])
        return {key: joined_arrays(item, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [joined_arrays(item, arrays) for item in value]
    return value


def packed(value: Any) -> bytes:
    """Returns a nested value as bytes; inverse of `unpacked`."""
    plain, arrays = split_arrays(value)
    text, file = json.dumps(plain, allow_nan=False).encode(), io.BytesIO()
    # mypy takes the arrays for the keyword `allow_pickle`.
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return len(text).to_bytes(8, "little") + text + file.getvalue()


def unpacked(data: bytes) -> Any:
    """Returns the value that `packed` has packed."""
    end = 8 + int.from_bytes(data[:8], "little")
    with np.load(io.BytesIO(data[end:]), allow_pickle=False) as arrays:
        return joined_arrays(json.loads(data[8:end]), arrays)


def _split(value: Any, path: str, arrays: dict[str, Any]) -> Any:
    """Returns a nested value in JSON types.

    Arrays are moved to `arrays` and replaced by a reference. JSON has no NaN and infinities: they are written as text.
    """
    if isinstance(value, dict):
        return {
            str(k): _split(v, f"{path}/{k}" if path else str(k), arrays) for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [_split(v, f"{path}/{n}", arrays) for n, v in enumerate(value)]
    if isinstance(value, np.ndarray):
        arrays[path] = value
        return {"npz": path}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(float(value))}
    return value

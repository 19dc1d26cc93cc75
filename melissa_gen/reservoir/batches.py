"""Copies the rows of a draw into the arrays of the caller."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melissa_gen.reservoir.samples import Batch, Draw
from melissa_gen.reservoir.slot_store import SampleRows

__all__ = ["check_out", "copied"]


def copied(store: SampleRows, draw: Draw, out: Mapping[str, NDArray[Any]]) -> Batch:
    """Copies the rows of the selected slots into `out`.

    Args:
        store: The rows.
        draw: What was selected.
        out: Name of each field or input field to an array.
    """
    selection, windows = draw.selection, draw.windows
    index = np.asarray(selection.slots, np.intp)
    rows = index if windows is None else np.asarray(windows, np.intp)
    count = len(index)
    fields = {name: array[:count] for name, array in out.items()}
    # All time steps of an item belong to one simulation.
    first = selection.slots if windows is None else [window[0] for window in windows]
    for name, array in fields.items():
        if name in store.input_specs:
            for row, slot in enumerate(first):
                array[row] = store.input_fields[slot][name]
            continue
        # Mode "clip" writes directly into `out`; the default mode allocates a buffer.
        np.take(store.arrays[name], rows, axis=0, out=array, mode="clip")
    return Batch(
        count=count,
        fields=fields,
        inputs=store.inputs[rows],
        simulations=store.simulations[index],
        steps=store.steps[first],
        first_time=np.asarray(selection.unseen, np.bool_),
        slots=index,
        weights=selection.weights,
        simulation_weights=store.weights[index],
    )


def check_out(
    store: SampleRows, n: int, steps: int | None, out: Mapping[str, NDArray[Any]]
) -> None:
    """Checks the arrays into which a batch of n items is copied.

    Raises:
        ValueError: An array is too short or has another shape or dtype.
    """
    if n < 1:
        message = f"a batch must have at least one sample, not {n}"
        raise ValueError(message)
    for name, array in out.items():
        if name in store.input_specs:
            shape, dtype = store.input_specs[name]
        else:
            rows = store.arrays[name]
            dtype = rows.dtype
            shape = rows.shape[1:] if steps is None else (steps, *rows.shape[1:])
        if array.dtype != dtype or array.shape[1:] != tuple(shape) or len(array) < n:
            message = (
                f"a batch of {n} of field '{name}' needs {(n, *shape)} {np.dtype(dtype)}, "
                f"not {array.shape} {array.dtype}"
            )
            raise ValueError(message)

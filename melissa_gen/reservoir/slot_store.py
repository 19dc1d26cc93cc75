"""Rows of memory for samples, allocated and touched once, before the first sample arrives."""

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from melissa_gen.errors import RunError

__all__ = ["FieldSpec", "SlotStore", "megabytes"]

FieldSpec = tuple[tuple[int, ...], DTypeLike]
"""Shape of one field without the sample axis, and its dtype."""


def _bytes(
    fields: Mapping[str, FieldSpec], slots: int, inputs: int, inputs_dtype: DTypeLike
) -> int:
    row = sum(
        int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        for shape, dtype in fields.values()
    )
    row += inputs * np.dtype(inputs_dtype).itemsize + 2 * np.dtype(np.int64).itemsize
    return slots * row


def megabytes(
    fields: Mapping[str, FieldSpec],
    slots: int,
    n_inputs: int = 0,
    inputs_dtype: DTypeLike = np.float32,
) -> float:
    """Memory that a `SlotStore` of these sizes will hold, in megabytes of 10**6 bytes.

    Args:
        fields: Name to (shape, dtype) of one sample.
        slots: Number of rows, capacity and staging together.
        n_inputs: Length of a sample's input vector (parameters and time).
        inputs_dtype: Type of the input vector.

    Returns:
        Megabytes, known before anything is allocated.
    """
    return _bytes(fields, slots, n_inputs, inputs_dtype) / 1e6


class SlotStore:
    """Preallocated rows for samples, with a list of those that are free.

    A slot is the index of one row in every array at once. Whoever acquired a slot alone writes to
    its row, until it is handed to a policy by `put`. Acquiring and releasing is thread-safe.

    Args:
        fields: Name to (shape, dtype) of one sample.
        slots: Number of rows: the policy's capacity plus the samples that are being assembled.
        n_inputs: Length of a sample's input vector (parameters and time).
        inputs_dtype: Type of the input vector.

    Attributes:
        arrays: Field name to an array (slots, *shape).
        inputs: Input vectors (slots, n_inputs).
        simulations: Simulation number of each row (slots,).
        steps: Time step of each row (slots,).

    Raises:
        RunError: The memory can't be had.
    """

    def __init__(
        self,
        fields: Mapping[str, FieldSpec],
        slots: int,
        n_inputs: int,
        inputs_dtype: DTypeLike = np.float32,
    ) -> None:
        if slots < 1:
            message = f"a slot store needs at least one slot, not {slots}"
            raise ValueError(message)
        self.slots = slots
        self.megabytes = megabytes(fields, slots, n_inputs, inputs_dtype)
        try:
            self.arrays: dict[str, NDArray[Any]] = {
                name: _committed((slots, *shape), dtype) for name, (shape, dtype) in fields.items()
            }
            self.inputs: NDArray[Any] = _committed((slots, n_inputs), inputs_dtype)
            self.simulations: NDArray[np.int64] = _committed((slots,), np.int64)
            self.steps: NDArray[np.int64] = _committed((slots,), np.int64)
        except MemoryError as error:
            message = (
                f"no memory for a reservoir of {slots} samples ({self.megabytes:.0f} MB): "
                "lower reservoir.capacity or ask for more memory per server rank"
            )
            raise RunError(message) from error
        self._lock = threading.Lock()
        self._free = list(range(slots - 1, -1, -1))
        self._held = bytearray(slots)

    @property
    def free(self) -> int:
        """Number of slots that `acquire` can still hand out."""
        return len(self._free)

    def acquire(self) -> int | None:
        """Hands out a free slot, or None when there is none."""
        with self._lock:
            if not self._free:
                return None
            slot = self._free.pop()
            self._held[slot] = 1
            return slot

    def release(self, slot: int) -> None:
        """Takes a slot back; its row may be overwritten from now on.

        Raises:
            ValueError: The slot is not held by anyone.
        """
        with self._lock:
            self._check(slot)
            self._held[slot] = 0
            self._free.append(slot)

    def row(self, slot: int, field: str) -> NDArray[Any]:
        """The row (*shape) of one field: a view, to be received into without a copy."""
        view: NDArray[Any] = self.arrays[field][slot, ...]
        return view

    def check(self, slot: int) -> None:
        """Raises ValueError unless the slot is held by someone."""
        with self._lock:
            self._check(slot)

    def _check(self, slot: int) -> None:
        if not 0 <= slot < self.slots or not self._held[slot]:
            message = f"slot {slot} of {self.slots} was not acquired"
            raise ValueError(message)


def _committed(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array of zeros whose pages are really there: np.zeros alone would only promise them."""
    array: NDArray[Any] = np.empty(shape, dtype)
    array.fill(0)
    return array

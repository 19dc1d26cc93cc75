"""Preallocated memory for samples. All pages are committed before the first sample arrives."""

import threading
from collections.abc import Mapping, MutableSequence, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from melissa_gen.errors import RunError, StudyError
from melissa_gen.reservoir.samples import NO_INPUTS, Inputs, SampleBlock
from melissa_gen.reservoir.shared_arrays import ArraySpec

__all__ = ["FieldSpec", "SampleRows", "Saver", "SlotStore", "megabytes", "row_specs"]

FieldSpec = ArraySpec
"""Shape of one field without the sample axis, and its dtype."""
_FIELD = "field."


class Saver(Protocol):
    """Saves rows that are about to be overwritten."""

    def before_release(self, slot: int) -> None:
        """Saves the row of a slot, unless it is saved already."""


def _bytes(
    fields: Mapping[str, FieldSpec], slots: int, inputs: int, inputs_dtype: DTypeLike
) -> int:
    row = sum(
        int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        for shape, dtype in fields.values()
    )
    # The input vector; simulation, time step and weight.
    row += inputs * np.dtype(inputs_dtype).itemsize + 3 * 8
    return slots * row


def megabytes(
    fields: Mapping[str, FieldSpec],
    slots: int,
    n_inputs: int = 0,
    inputs_dtype: DTypeLike = np.float32,
) -> float:
    """Computes the memory of a `SlotStore` in megabytes (10**6 bytes), without allocating it.

    Args:
        fields: Name to (shape, dtype) of one sample.
        slots: Number of slots: the policy's capacity plus the samples being assembled.
        n_inputs: Length of a sample's input vector (parameters and time).
        inputs_dtype: Dtype of the input vector.

    Returns:
        The memory in megabytes.
    """
    return _bytes(fields, slots, n_inputs, inputs_dtype) / 1e6


def row_specs(
    fields: Mapping[str, FieldSpec],
    slots: int,
    n_inputs: int,
    inputs_dtype: DTypeLike = np.float32,
) -> dict[str, ArraySpec]:
    """Returns shape and dtype of the arrays of `SampleRows`, as `SlotStore` takes the arguments."""
    specs: dict[str, ArraySpec] = {
        _FIELD + name: ((slots, *shape), dtype) for name, (shape, dtype) in fields.items()
    }
    return specs | {
        "inputs": ((slots, n_inputs), inputs_dtype),
        "simulations": ((slots,), np.int64),
        "steps": ((slots,), np.int64),
        "weights": ((slots,), np.float64),
    }


class SampleRows:
    """The rows of samples, which several processes may share.

    Args:
        arrays: The arrays of `row_specs`.
        input_specs: Name to (shape, dtype) of the input fields of a simulation.

    Attributes:
        input_specs: Name to (shape, dtype) of the input fields of a simulation.
        input_fields: Slot to the input fields of its simulation. The slots of a simulation refer to the same arrays.
        arrays: Field name to an array `(slots, *shape)`.
        inputs: Input vectors, `(slots, n_inputs)`.
        simulations: Simulation number of each slot, `(slots,)`.
        steps: Time step of each slot, `(slots,)`.
        weights: Importance weight of the simulation of each slot, `(slots,)`.
    """

    input_fields: MutableSequence[Inputs] | dict[int, Inputs]

    def __init__(
        self,
        arrays: Mapping[str, NDArray[Any]],
        input_specs: Mapping[str, FieldSpec] | None = None,
    ) -> None:
        self.arrays: dict[str, NDArray[Any]] = {
            name.removeprefix(_FIELD): array
            for name, array in arrays.items()
            if name.startswith(_FIELD)
        }
        self.inputs: NDArray[Any] = arrays["inputs"]
        self.simulations: NDArray[np.int64] = arrays["simulations"]
        self.steps: NDArray[np.int64] = arrays["steps"]
        self.weights: NDArray[np.float64] = arrays["weights"]
        self.input_specs = dict(input_specs or {})
        self.input_fields = {}


class SlotStore(SampleRows):
    """Preallocated arrays for samples, and the list of free slots.

    A slot is a row index that is common to all arrays. Only the thread that acquired a slot writes
    to its row, until the slot is passed to `Policy.put`. Acquiring and releasing are thread-safe.

    Args:
        fields: Name to (shape, dtype) of one sample.
        slots: Number of slots: the policy's capacity plus the samples being assembled.
        n_inputs: Length of a sample's input vector (parameters and time).
        inputs_dtype: Dtype of the input vector.
        input_specs: Name to (shape, dtype) of the input fields of a simulation.
        arrays: The arrays of `row_specs`, with zeros; None: they are allocated.

    Attributes:
        saver: Is called before a slot is released while the rows are being saved, else None.
        megabytes: Memory of all arrays in megabytes.

    Raises:
        RunError: The memory could not be allocated.
        ValueError: `slots` is less than 1.
    """

    def __init__(
        self,
        fields: Mapping[str, FieldSpec],
        slots: int,
        n_inputs: int,
        inputs_dtype: DTypeLike = np.float32,
        input_specs: Mapping[str, FieldSpec] | None = None,
        arrays: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        if slots < 1:
            message = f"a slot store needs at least one slot, not {slots}"
            raise ValueError(message)
        self.slots = slots
        self.megabytes = megabytes(fields, slots, n_inputs, inputs_dtype)
        try:
            if arrays is None:
                arrays = _committed(row_specs(fields, slots, n_inputs, inputs_dtype))
        except MemoryError as error:
            message = (
                f"could not allocate a reservoir of {slots} samples ({self.megabytes:.0f} MB): "
                "lower reservoir.capacity or request more memory per server rank"
            )
            raise RunError(message) from error
        super().__init__(arrays, input_specs)
        self.input_fields = [NO_INPUTS] * slots
        self.saver: Saver | None = None
        self._lock = threading.Lock()
        self._free = list(range(slots - 1, -1, -1))
        self._held = bytearray(slots)

    @property
    def free(self) -> int:
        """Number of free slots."""
        return len(self._free)

    def check_capacity(self, capacity: int, watermark: int) -> None:
        """Checks the sizes of a policy that uses these slots.

        Raises:
            StudyError: The capacity or the watermark is out of range.
        """
        if not 1 <= capacity < self.slots:
            message = (
                f"reservoir.capacity is {capacity}, but the store has {self.slots} rows: "
                f"legal are 1 to {self.slots - 1}, because one row must remain free for receiving"
            )
            raise StudyError(message)
        if not 0 <= watermark <= capacity:
            message = f"reservoir.watermark is {watermark}: legal are 0 to the capacity, {capacity}"
            raise StudyError(message)

    def acquire(self) -> int | None:
        """Acquires a free slot. Returns None if all slots are in use."""
        with self._lock:
            if not self._free:
                return None
            slot = self._free.pop()
            self._held[slot] = 1
            return slot

    def acquire_all(self, count: int) -> list[int] | None:
        """Acquires several free slots. Returns None, and acquires none, if there are fewer."""
        with self._lock:
            if len(self._free) < count:
                return None
            # In the order of single calls of `acquire`.
            slots = self._free[: -count - 1 : -1]
            del self._free[len(self._free) - count :]
            for slot in slots:
                self._held[slot] = 1
            return slots

    def release(self, slot: int) -> None:
        """Frees a slot. Its row can be overwritten from now on.

        Raises:
            ValueError: The slot was not acquired.
        """
        self.release_all((slot,))

    def release_all(self, slots: Sequence[int]) -> None:
        """Frees several slots. Their rows can be overwritten from now on.

        Raises:
            ValueError: A slot was not acquired. Those before it are free.
        """
        saver = self.saver
        if saver is not None:
            for slot in slots:
                saver.before_release(slot)
        held = self._held
        with self._lock:
            for slot in slots:
                if not (0 <= slot < self.slots and held[slot]):
                    raise self._not_acquired(slot)
                self.input_fields[slot] = NO_INPUTS
                held[slot] = 0
                self._free.append(slot)

    def row(self, slot: int, field: str) -> NDArray[Any]:
        """Returns a view `(*shape)` of one field of a slot, e.g. to receive into without a copy."""
        view: NDArray[Any] = self.arrays[field][slot, ...]
        return view

    def describe(self, slots: Sequence[int], block: SampleBlock) -> None:
        """Sets all that belongs to the samples in some slots beside their fields."""
        index = np.array(slots, np.intp)
        self.inputs[index], self.weights[index] = block.inputs, block.weight
        self.simulations[index], self.steps[index] = block.simulation, block.steps
        for slot in slots:
            self.input_fields[slot] = block.input_fields

    def check(self, slots: Sequence[int]) -> None:
        """Checks that slots were acquired.

        Raises:
            ValueError: A slot was not acquired.
        """
        with self._lock:
            for slot in slots:
                if not (0 <= slot < self.slots and self._held[slot]):
                    raise self._not_acquired(slot)

    def _not_acquired(self, slot: int) -> ValueError:
        return ValueError(f"slot {slot} of {self.slots} was not acquired")


def _committed(specs: Mapping[str, ArraySpec]) -> dict[str, NDArray[Any]]:
    """Allocates arrays of zeros and commits their pages.

    `np.zeros` only reserves address space, so that memory could run out later.
    """
    found: dict[str, NDArray[Any]] = {}
    for name, (shape, dtype) in specs.items():
        found[name] = np.empty(shape, dtype)
        found[name].fill(0)
    return found

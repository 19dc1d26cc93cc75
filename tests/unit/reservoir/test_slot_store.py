import numpy as np
import pytest

from melissa_gen.errors import RunError
from melissa_gen.reservoir import SlotStore, megabytes

FIELDS = {"u": ((3, 2), "f4"), "p": ((), "f8")}


def test_the_memory_estimate_equals_the_size_of_the_arrays():
    store = SlotStore(FIELDS, slots=7, n_inputs=5)
    held = [*store.arrays.values(), store.inputs, store.simulations, store.steps, store.weights]
    assert sum(array.nbytes for array in held) == pytest.approx(store.megabytes * 1e6)
    assert megabytes(FIELDS, 7, 5) == store.megabytes


def test_every_slot_is_handed_out_once():
    store = SlotStore(FIELDS, slots=4, n_inputs=1)
    slots = [store.acquire() for _ in range(5)]
    assert sorted(slots[:4]) == [0, 1, 2, 3]
    assert slots[4] is None
    store.release(2)
    assert store.acquire() == 2


def test_a_slot_is_released_once():
    store = SlotStore(FIELDS, slots=2, n_inputs=1)
    slot = store.acquire()
    store.release(slot)
    for wrong in (slot, 7, -1):
        with pytest.raises(ValueError, match="was not acquired"):
            store.release(wrong)


def test_bytes_can_be_received_into_a_row():
    store = SlotStore(FIELDS, slots=2, n_inputs=1)
    memoryview(store.row(1, "u")).cast("B")[:] = np.arange(6, dtype="f4").tobytes()
    store.row(1, "p")[...] = 3.5
    assert store.arrays["u"][1].ravel().tolist() == [0, 1, 2, 3, 4, 5]
    assert store.arrays["p"].tolist() == [0, 3.5]


def test_memory_that_cannot_be_had_is_one_sentence():
    with pytest.raises(RunError, match=r"lower reservoir\.capacity"):
        SlotStore({"u": ((10**9,), "f8")}, slots=10**6, n_inputs=1)

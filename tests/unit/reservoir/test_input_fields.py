"""Input fields in a reservoir: drawn with their samples, freed with the last one, and saved once per simulation."""

import gc
import json
import weakref

import numpy as np
import pytest

from melissa_gen.errors import DataError
from melissa_gen.reservoir import RowReader, RowSaver, Sample, SlotStore, StoredRows, create
from melissa_gen.reservoir.segments import WindowShape

FIELDS, INPUTS = {"u": ((2,), "f4")}, {"k": ((3,), "f8")}


def memory_of(policy="reservoir", capacity=6):
    store = SlotStore(FIELDS, capacity + 4, 2, input_specs=INPUTS)
    return create(policy, store, capacity, 1, 0)


def put(memory, simulation, step, inputs):
    slot = memory.store.acquire()
    memory.store.row(slot, "u")[:] = 10 * simulation + step
    assert memory.put(slot, Sample(simulation, step, [simulation, step], input_fields=inputs))


def fill(memory, simulations=2, steps=3):
    given = [{"k": np.full(3, n + 0.125)} for n in range(simulations)]
    for simulation, inputs in enumerate(given):
        for step in range(steps):
            put(memory, simulation, step, inputs)


def drawn(memory, n, steps=()):
    out = {"u": np.empty((n, *steps, 2), "f4"), "k": np.empty((n, 3))}
    return memory.draw(n, out, below_watermark=True)


@pytest.mark.parametrize("policy", ["fifo", "firo", "reservoir"])
def test_a_sample_is_drawn_with_the_inputs_of_its_simulation(policy):
    memory = memory_of(policy)
    fill(memory)
    for _ in range(3):
        batch = drawn(memory, 2)
        np.testing.assert_array_equal(
            batch.fields["k"], np.repeat(batch.simulations[:, None] + 0.125, 3, axis=1)
        )


def test_a_window_is_drawn_with_one_copy_of_the_inputs():
    memory = memory_of()
    memory.form_windows(WindowShape(2, 1), 3, 1)
    fill(memory)
    batch = drawn(memory, 2, steps=(2,))
    assert (batch.fields["k"][:, 0] - 0.125).tolist() == batch.simulations.tolist()


def test_the_inputs_are_freed_with_the_last_sample_of_the_simulation():
    memory = memory_of("fifo")
    inputs = {"k": np.zeros(3)}
    seen = weakref.ref(inputs["k"])
    put(memory, 0, 0, inputs)
    put(memory, 0, 1, inputs)
    del inputs
    drawn(memory, 1)
    assert seen() is not None
    drawn(memory, 1)
    gc.collect()
    assert seen() is None


def saved(tmp_path):
    memory = memory_of()
    fill(memory)
    saver = RowSaver(memory.store, memory.rows(), tmp_path / "rows")
    assert saver.run()
    assert (tmp_path / "rows").stat().st_size == saver.nbytes
    return memory


def refilled(path, memory):
    with RowReader(path) as reader:
        slots = np.array([memory.store.acquire() for _ in range(len(reader))], np.intp)
        reader.read(np.arange(len(reader)), memory.store, slots)
        memory.refill(StoredRows(slots, reader.columns))


def test_inputs_are_saved_once_per_simulation_and_read_back(tmp_path):
    before = saved(tmp_path)
    memory = memory_of()
    memory.restore(before.state())
    refilled(tmp_path / "rows", memory)
    held = {id(memory.store.input_fields[slot]) for slot in memory.slots()}
    assert len(held) == 2
    batch = drawn(memory, 6)
    assert (batch.fields["k"][:, 0] - 0.125).tolist() == batch.simulations.tolist()


def test_damaged_inputs_are_found(tmp_path):
    saved(tmp_path)
    path = tmp_path / "rows"
    raw = path.read_bytes()
    assert raw.count(np.full(3, 1.125).tobytes()) == 1
    path.write_bytes(raw.replace(np.full(3, 1.125).tobytes(), np.full(3, 7.0).tobytes()))
    with pytest.raises(DataError, match="the checksum of the inputs of a simulation is wrong"):
        refilled(path, memory_of())


def test_damaged_numbers_of_simulations_are_found(tmp_path):
    saved(tmp_path)
    path = tmp_path / "rows"
    raw = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:begin])
    raw[begin + header["simulations"]["data_offsets"][0]] ^= 64
    path.write_bytes(raw)
    with pytest.raises(DataError, match="the checksum of the inputs of a simulation is wrong"):
        refilled(path, memory_of())

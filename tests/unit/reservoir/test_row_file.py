"""The rows of a reservoir in a file are those of one moment, also if the reservoir changes while they are written."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melissa_gen.errors import DataError
from melissa_gen.reservoir import RowReader, RowSaver, Sample, SlotStore, StoredRows, create

FIELDS = {"u": ((3,), "f4"), "p": ((), "f8")}
CAPACITY = 8
KINDS = [("fifo",), ("firo",), ("reservoir",), ("reservoir", "difficulty", "difficulty")]


def memory_of(kind, capacity=CAPACITY, seed=0):
    policy, *preference = kind
    store = SlotStore(FIELDS, capacity + 3, 2)
    return create(policy, store, capacity, 2, seed, *preference)


def put(memory, number):
    slot = memory.store.acquire()
    memory.store.row(slot, "u")[:] = number
    memory.store.row(slot, "p")[...] = -number
    accepted = memory.put(slot, Sample(number, number % 4, [number, 0.5], 1.0 + number))
    if not accepted:
        memory.store.release(slot)
    return accepted


def draw(memory, n):
    out = {name: np.empty((n, *shape), dtype) for name, (shape, dtype) in FIELDS.items()}
    batch = memory.draw(n, out, below_watermark=True)
    if batch is not None:
        memory.update_losses(batch, np.arange(batch.count) + 0.5)
    return batch


def restored(kind, path, state, capacity=CAPACITY):
    memory = memory_of(kind, capacity)
    memory.restore(state)
    with RowReader(path) as reader:
        slots = np.array([memory.store.acquire() for _ in range(len(reader))], np.intp)
        reader.read(np.arange(len(reader)), memory.store, slots)
        memory.refill(StoredRows(slots, reader.columns))
    return memory


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_restored_policy_continues_the_draws_of_the_saved_one(tmp_path, kind):
    memory = memory_of(kind)
    for number in range(6):
        put(memory, number)
    draw(memory, 3)
    saver = RowSaver(memory.store, memory.rows(), tmp_path / "rows")
    assert saver.run()
    assert (tmp_path / "rows").stat().st_size == saver.nbytes
    state = memory.state()
    other = restored(kind, tmp_path / "rows", state)
    assert other.refilled
    assert other.counters() == memory.counters()
    assert len(memory) > 0
    for _ in range(4):
        for number in range(10, 13):
            assert put(memory, number) == put(other, number)
        mine, its = draw(memory, 2), draw(other, 2)
        for name in ("simulations", "steps", "inputs", "weights", "simulation_weights"):
            assert np.array_equal(getattr(mine, name), getattr(its, name)), name
        for name in FIELDS:
            assert np.array_equal(mine.fields[name], its.fields[name])


@given(
    kind=st.sampled_from(KINDS),
    before=st.lists(st.integers(-3, 1), min_size=1, max_size=20),
    after=st.lists(st.integers(-3, 1), max_size=30),
)
def test_the_file_holds_the_instant_of_the_snapshot(tmp_path_factory, kind, before, after):
    """A 1 or 0 stands for a put, a negative number for a draw of that size."""
    path = tmp_path_factory.mktemp("rows") / "rows"
    memory = memory_of(kind)
    number = 0

    def play(moves):
        nonlocal number
        for move in moves:
            number += 1
            if move < 0:
                draw(memory, -move)
            else:
                put(memory, number)

    play(before)
    rows, state = memory.rows(), memory.state()
    expected = {
        int(n): bool(seen)
        for n, seen in zip(rows.columns["simulation"], rows.columns["seen"], strict=True)
    }
    saver = memory.store.saver = RowSaver(memory.store, rows, path)
    play(after)
    memory.withdraw_all("stop")
    assert saver.run()
    other = restored(kind, path, state)
    found = other.rows()
    simulations = found.columns["simulation"].tolist()
    assert dict(zip(simulations, found.columns["seen"].tolist(), strict=True)) == expected
    assert other.store.arrays["u"][found.slots, 0].tolist() == simulations
    assert (-other.store.arrays["p"][found.slots]).tolist() == simulations
    counters = other.counters()
    assert counters["stored"] == counters["trained"] + counters["unseen"]
    assert counters["withdrawn"] == {}


@pytest.mark.parametrize(
    "damage", ["truncated", "header", "row", "column", "missing", "other field"]
)
def test_a_damaged_file_is_detected(tmp_path, damage):
    memory = memory_of(("reservoir",))
    for number in range(6):
        put(memory, number)
    path = tmp_path / "rows"
    RowSaver(memory.store, memory.rows(), path).run()
    raw = bytearray(path.read_bytes())
    if damage == "truncated":
        raw = raw[:-5]
    elif damage == "header":
        raw[0] ^= 255
    elif damage == "row":
        raw[raw.index(np.full(3, 4, "f4").tobytes())] ^= 1
    elif damage == "column":
        raw[raw.index(np.arange(6, dtype="i8").tobytes())] ^= 1
    path.write_bytes(raw)
    if damage == "missing":
        path.unlink()
    store = SlotStore({"v": ((3,), "f4")}, 9, 2) if damage == "other field" else memory.store
    with pytest.raises(DataError, match="rows"), RowReader(path) as reader:
        reader.read(np.arange(6), store, np.arange(6))


def test_a_part_of_the_rows_is_read(tmp_path):
    memory = memory_of(("fifo",), capacity=600)
    for number in range(600):
        put(memory, number)
    RowSaver(memory.store, memory.rows(), tmp_path / "rows").run()
    store = SlotStore(FIELDS, 300, 2)
    wanted = np.arange(1, 600, 2)
    with RowReader(tmp_path / "rows") as reader:
        reader.read(wanted, store, np.arange(300))
    assert store.arrays["p"].tolist() == (-wanted).tolist()


def test_a_canceled_or_failed_save_does_not_disturb_the_store(tmp_path):
    memory = memory_of(("fifo",))
    for number in range(6):
        put(memory, number)
    saver = memory.store.saver = RowSaver(memory.store, memory.rows(), tmp_path / "rows")
    assert not saver.run(lambda: True)
    assert draw(memory, 3).simulations.tolist() == [0, 1, 2]
    with pytest.raises(OSError, match="No such file"):
        RowSaver(memory.store, memory.rows(), tmp_path / "missing" / "rows").run()
    with pytest.raises(DataError), RowReader(tmp_path / "rows") as reader:
        reader.read(np.arange(6), memory.store, np.arange(6))

"""Windows of several time steps: uniform draws, eviction by segment, accounting per time step, and restoring."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melissa_gen import reservoir
from melissa_gen.errors import StudyError
from melissa_gen.reservoir import Sample, SlotStore, StoredRows, WindowShape

FIELDS = {"u": ((2,), "f4")}


def memory_of(shape, time_steps, capacity=200, draws="uniform", watermark=0, policy="reservoir"):
    slots = capacity + 4 * shape.longest_segment(time_steps) + 4
    store = SlotStore(FIELDS, slots, 2)
    memory = reservoir.create(policy, store, capacity, watermark, 1, draws=draws)
    memory.form_windows(shape, time_steps, 3)
    return memory


def put(memory, simulation, step):
    slot = memory.store.acquire()
    assert slot is not None, "the rows never run out"
    memory.store.row(slot, "u")[:] = simulation, step
    if memory.put(slot, Sample(simulation, step, [0.0, step])):
        return True
    memory.store.release(slot)
    return False


def draw(memory, n, steps):
    out = {"u": np.zeros((n, steps, 2), np.float32)}
    batch = memory.draw(n, out, below_watermark=True)
    return batch if batch is None else (batch, batch.fields["u"])


def balanced(memory):
    found = memory.counters()
    assert found["stored"] == found["trained"] + found["unseen"] + sum(found["withdrawn"].values())
    return found


def test_a_window_holds_the_steps_of_one_simulation_at_its_stride():
    shape = WindowShape(3, 2)
    memory = memory_of(shape, 20)
    for step in range(20):
        for simulation in range(2):
            put(memory, simulation, step)
    batch, u = draw(memory, 32, 3)
    assert batch.count == 32 and batch.inputs.shape == (32, 3, 2)
    np.testing.assert_array_equal(u[:, :, 0], np.repeat(u[:, :1, 0], 3, axis=1))
    np.testing.assert_array_equal(np.diff(u[:, :, 1], axis=1), 2.0)
    np.testing.assert_array_equal(batch.inputs[:, :, 1], u[:, :, 1])


def test_an_item_is_named_by_the_first_step_of_its_window_even_where_times_round_to_the_same_number():
    memory = memory_of(WindowShape(2), 12)
    for step in range(12):
        slot = memory.store.acquire()
        memory.store.row(slot, "u")[:] = 0, step
        assert memory.put(slot, Sample(0, step, [0.0, 1e6 + step * 1e-3]))
    batch, u = draw(memory, 11, 2)
    assert len(set(batch.inputs[:, 0, 1].tolist())) == 1
    assert sorted(batch.steps.tolist()) == list(range(11))
    np.testing.assert_array_equal(batch.steps, u[:, 0, 1])


def test_all_windows_are_equally_likely_and_none_repeats_before_the_others_of_its_segment():
    memory = memory_of(WindowShape(2), 12)
    for step in range(12):
        put(memory, 0, step)
    found = Counter()
    for _ in range(1100):
        found.update(draw(memory, 10, 2)[1][:, 0, 1].tolist())
    assert set(found) == set(range(11))
    assert max(found.values()) < 1.15 * min(found.values())


def test_the_end_draws_each_window_once():
    memory = memory_of(WindowShape(2), 10)
    for simulation in range(3):
        for step in range(10):
            put(memory, simulation, step)
    memory.close()
    seen = []
    while (found := draw(memory, 8, 2)) is not None:
        seen += [tuple(one) for one in found[1][:, 0].tolist()]
    assert sorted(seen) == [(n, step) for n in range(3) for step in range(9)]
    assert memory.drained and balanced(memory)["trained"] == 30
    assert memory.store.free == memory.store.slots


def test_steps_without_neighbors_are_withdrawn_with_the_reason():
    memory = memory_of(WindowShape(2), 10)
    for step in (0, 1, 2, 4, 6, 8):
        put(memory, 0, step)
    memory.close()
    assert balanced(memory)["withdrawn"] == {"in no complete window": 6}
    assert memory.drained


def test_steps_between_the_strides_of_few_windows_are_withdrawn():
    shape = WindowShape(3, 4)
    memory = memory_of(shape, 10, capacity=10)
    for simulation in range(3):
        for step in range(10):
            while not put(memory, simulation, step):
                draw(memory, 1, 3)
            balanced(memory)
    memory.close()
    while draw(memory, 1, 3) is not None:
        balanced(memory)
    # Windows begin at steps 0 and 1, so that they never contain steps 2, 3, 6 and 7.
    assert balanced(memory)["withdrawn"] == {"in no drawn window": 12}
    assert memory.drained and memory.store.free == memory.store.slots


def test_a_full_memory_reaches_its_watermark_whatever_the_sizes_of_its_segments():
    memory = memory_of(WindowShape(2), 18, capacity=9, watermark=9)
    for step in range(18):
        put(memory, 0, step)
    assert memory.ready(1)


def test_a_restored_memory_with_more_segments_than_it_keeps_shrinks():
    """Two server ranks become one: it takes more segments than fit beside those that arrive."""
    old = memory_of(WindowShape(2), 12)
    for simulation in range(5):
        for step in range(12):
            put(old, simulation, step)
    while len(old.unseen()):
        draw(old, 8, 2)
    rows = old.rows()
    rows = StoredRows(rows.slots[:54], {name: column[:54] for name, column in rows.columns.items()})
    memory = memory_of(WindowShape(2), 12, capacity=27)
    assert memory.restorable == 54
    memory.restore(old.state())
    slots = np.array([memory.store.acquire() for _ in rows.slots], np.intp)
    memory.refill(rows._replace(slots=slots))
    for step in range(12):
        for simulation in range(20, 23):
            while not put(memory, simulation, step):
                draw(memory, 8, 2)
            balanced(memory)
    assert len(memory.slots()) <= 27


@pytest.mark.parametrize(
    ("capacity", "time_steps", "policy", "words"),
    [
        (4, 20, "reservoir", "reservoir.capacity is 4"),
        (200, 2, "reservoir", "do not fit into simulations of 2"),
        (200, 20, "fifo", "reservoir.policy must be reservoir"),
    ],
)
def test_what_can_hold_no_window_is_refused_in_a_sentence(capacity, time_steps, policy, words):
    with pytest.raises(StudyError) as error:
        memory_of(WindowShape(3), time_steps, capacity, policy=policy)
    assert words in str(error.value)


def test_a_restored_memory_continues_the_rounds():
    memory = memory_of(WindowShape(2), 12)
    for simulation in range(2):
        for step in range(10 + 2 * (simulation == 0)):
            put(memory, simulation, step)
    first = {tuple(one) for one in draw(memory, 5, 2)[1][:, 0].tolist()}
    state, rows = memory.state(), memory.rows()
    other = memory_of(WindowShape(2), 12)
    other.restore(state)
    slots = np.array([other.store.acquire() for _ in rows.slots], np.intp)
    other.store.arrays["u"][slots] = memory.store.arrays["u"][rows.slots]
    other.refill(rows._replace(slots=slots))
    assert balanced(other) == balanced(memory)
    for step in (10, 11):
        put(other, 1, step)
    other.close()
    later = []
    while (found := draw(other, 4, 2)) is not None:
        later += [tuple(one) for one in found[1][:, 0].tolist()]
    assert len(later) == len(set(later)), "no window twice"
    assert set(later) | first == {(n, step) for n in range(2) for step in range(11)}
    assert len(set(later) & first) == 0 and balanced(other)["trained"] == 24


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 4),
    st.integers(1, 2),
    st.sampled_from(["uniform", "difficulty"]),
    st.lists(st.integers(0, 2**16), min_size=30, max_size=120),
)
def test_steps_add_up_and_memory_suffices(steps, stride, draws, choices):
    """Simulations in any order, steps out of order or missing, draws in between: no row is lost or leaked."""
    shape = WindowShape(steps, stride)
    memory = memory_of(shape, 15, 3 * shape.longest_segment(15), draws)
    put_once = set()
    for choice in choices:
        simulation, step = choice % 9, (choice // 9) % 17
        for one in range(15) if step > 14 else (step,):
            if (simulation, one) in put_once:
                continue
            if put(memory, simulation, one):
                put_once.add((simulation, one))
            elif (found := draw(memory, 4, steps)) is not None:
                memory.update_losses(found[0], np.ones(found[0].count))
        balanced(memory)
        assert len(memory.slots()) + memory.store.free == memory.store.slots
    memory.close()
    while draw(memory, 6, steps) is not None:
        balanced(memory)
    assert memory.drained and memory.store.free == memory.store.slots
    assert balanced(memory)["unseen"] == 0

"""A batch that is selected in advance is the next draw, and counts from its draw on."""

import numpy as np
import pytest

from melissa_gen.reservoir import Sample, SlotStore, WindowShape, create

CAPACITY, BATCH = 32, 4


def build(*names, capacity=CAPACITY, seed=0, **options):
    """Returns a reservoir with a sample for each name."""
    store = SlotStore({"u": ((2,), "f4")}, capacity + 2, 1)
    memory = create("reservoir", store, capacity, 0, seed, **options)
    assert put(memory, *names) == len(names)
    return memory


def put(memory, *names):
    """Puts a sample for each name until one is refused; returns how many were accepted."""
    for count, name in enumerate(names):
        slot = memory.store.acquire()
        memory.store.row(slot, "u")[:] = name
        if not memory.put(slot, Sample(name, 0, [name])):
            memory.store.release(slot)
            return count
    return len(names)


def draw(memory, n=BATCH):
    """Returns the names of a batch."""
    batch = memory.draw(n, {"u": np.empty((n, 2), "f4")})
    assert np.array_equal(batch.fields["u"][:, 0], batch.simulations)
    return batch.simulations.tolist()


def names_of(memory, offer):
    return memory.store.simulations[offer.selection.slots].tolist()


def see_all(memory):
    """Draws until each stored sample was drawn."""
    while memory.counters()["unseen"]:
        draw(memory)


def test_an_offer_is_the_next_batch_and_changes_no_other_one():
    memory, other = build(*range(CAPACITY)), build(*range(CAPACITY))
    for _ in range(5):
        offer = memory.offer(BATCH)
        assert names_of(memory, offer) == draw(memory) == draw(other)
    assert memory.counters() == other.counters()


def test_an_offer_does_not_count_as_drawn():
    memory = build(*range(CAPACITY))
    draw(memory)
    counters, unseen = memory.counters(), memory.unseen().tolist()
    offer = memory.offer(BATCH)
    assert memory.counters() == counters
    assert memory.unseen().tolist() == unseen
    assert memory.rows().columns["seen"].sum() == counters["seen"]
    new = {one for one in names_of(memory, offer) if [one, 0] in unseen}
    draw(memory)
    after = memory.counters()
    assert after["draws"] == counters["draws"] + 1
    assert after["trained"] == counters["trained"] + len(new)


@pytest.mark.parametrize("at_once", [1, 12])
def test_samples_of_an_offer_stay_in_memory_until_its_draw(at_once):
    """Also if many samples come in one block."""
    memory = build(*range(CAPACITY))
    see_all(memory)
    kept = names_of(memory, memory.offer(BATCH))
    most = CAPACITY - len(set(kept))
    for first in range(CAPACITY, CAPACITY + most, at_once):
        put(memory, *range(first, min(first + at_once, CAPACITY + most)))
    # All others have made room; these do not.
    assert put(memory, 1000) == 0 and memory.blocked and not memory.has_room
    assert draw(memory) == kept
    assert not memory.blocked
    assert put(memory, *range(1000, 1100)) == len(set(kept))
    assert memory.store.free == 2


def test_a_batch_of_another_size_gives_an_offer_up():
    memory = build(*range(CAPACITY))
    see_all(memory)
    memory.offer(BATCH)
    assert len(draw(memory, BATCH - 1)) == BATCH - 1
    # Nothing is kept any more.
    assert put(memory, *range(100, 100 + CAPACITY)) == CAPACITY


def test_unseen_samples_are_offered_only_if_there_is_a_batch_of_them():
    """Otherwise those that arrive before the draw would have to wait, and others be drawn more often."""
    memory = build(*range(CAPACITY), unseen_first=True)
    for drawn in range(BATCH, CAPACITY + 1, BATCH):
        assert memory.offer(BATCH) is not None
        draw(memory)
        assert memory.counters()["trained"] == drawn
    assert memory.offer(BATCH) is None
    put(memory, *range(100, 100 + BATCH - 1))
    assert memory.offer(BATCH) is None
    put(memory, 200)
    assert sorted(names_of(memory, memory.offer(BATCH))) == [100, 101, 102, 200]


def test_the_batch_that_was_offered_before_the_end_is_drawn_after_it():
    memory = build(*range(CAPACITY))
    kept = names_of(memory, memory.offer(BATCH))
    memory.close()
    assert draw(memory) == kept
    rest = []
    while not memory.drained:
        rest += draw(memory)
    assert sorted(rest + list(set(kept))) == list(range(CAPACITY))
    assert memory.counters()["trained"] == CAPACITY
    assert memory.store.free == memory.store.slots


def test_a_stop_withdraws_the_samples_of_an_offer():
    memory = build(*range(CAPACITY))
    memory.offer(BATCH)
    assert memory.withdraw_all("stopped") == CAPACITY
    assert memory.store.free == memory.store.slots
    assert memory.draw(BATCH, {"u": np.empty((BATCH, 2), "f4")}) is None


def test_there_is_no_offer_where_the_next_batch_is_not_known_before():
    few = build(*range(8 * BATCH - 1))
    assert few.offer(BATCH) is None and few.offer(1) is not None
    closed = build(*range(CAPACITY))
    closed.close()
    assert closed.offer(BATCH) is None
    for draws, eviction in (("difficulty", "random"), ("uniform", "difficulty")):
        by_loss = build(*range(CAPACITY), draws=draws, eviction=eviction)
        assert by_loss.offer(BATCH) is None
    for policy in ("fifo", "firo"):
        once = create(policy, SlotStore({"u": ((2,), "f4")}, CAPACITY + 2, 1), CAPACITY)
        put(once, *range(CAPACITY))
        assert once.offer(BATCH) is None
    windows = create("reservoir", SlotStore({"u": ((2,), "f4")}, 60, 1), CAPACITY)
    windows.form_windows(WindowShape(2), 8, 1)
    for step in range(8):
        slot = windows.store.acquire()
        windows.put(slot, Sample(0, step, [step]))
    assert len(windows) and windows.offer(1) is None

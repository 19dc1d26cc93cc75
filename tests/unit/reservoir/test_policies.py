import json
import threading

import numpy as np
import pytest
from scipy import stats

from melissa_gen.errors import RunError, StudyError
from melissa_gen.reservoir import FIFO, FIRO, Reservoir, Sample, SlotStore, create

SHAPE = (3,)


def build(policy="reservoir", capacity=8, watermark=0, staging=2, seed=0):
    store = SlotStore({"u": (SHAPE, "f4")}, capacity + staging, n_inputs=2)
    return create(policy, store, capacity, watermark, seed)


def fill(memory, names):
    """Puts one sample for each number; returns those that were accepted."""
    accepted = []
    for name in names:
        slot = memory.store.acquire()
        memory.store.row(slot, "u")[:] = name
        if memory.put(slot, Sample(name, name % 10, [name, -name])):
            accepted.append(name)
        else:
            memory.store.release(slot)
    return accepted


def draw(memory, n, **options):
    batch = memory.draw(n, {"u": np.empty((n, *SHAPE), "f4")}, **options)
    if batch is not None:
        assert np.array_equal(batch.fields["u"], np.repeat(batch.simulations[:, None], 3, 1))
        assert np.array_equal(batch.inputs, np.stack([batch.simulations, -batch.simulations], 1))
        assert np.array_equal(batch.steps, batch.simulations % 10)
        assert len(batch.first_time) == batch.count == len(batch.simulations)
    return batch


def balanced(memory):
    c = memory.counters()
    return c["stored"] == c["trained"] + c["unseen"] + sum(c["withdrawn"].values())


@pytest.mark.parametrize("policy", ["fifo", "firo", "reservoir"])
class TestEveryPolicy:
    def test_a_reservoir_full_of_unseen_samples_refuses_puts(self, policy):
        memory = build(policy, capacity=4)
        assert fill(memory, range(6)) == [0, 1, 2, 3]
        assert memory.blocked
        assert not memory.has_room
        draw(memory, 4)
        assert memory.has_room
        assert fill(memory, [9]) == [9]
        assert not memory.blocked

    def test_training_ends_after_the_end_of_reception(self, policy):
        memory = build(policy, watermark=4)
        fill(memory, range(7))
        memory.close()
        assert not memory.drained
        counts = []
        while (batch := draw(memory, 3)) is not None:
            counts.append(batch.count)
        assert counts == [3, 3, 1]
        assert memory.drained
        assert memory.counters()["trained"] == 7
        assert memory.store.free == memory.store.slots
        with pytest.raises(RunError, match="after reception closed"):
            fill(memory, [1])

    def test_pacing_withholds_puts(self, policy):
        memory = build(policy)
        memory.allow_puts(2)
        assert fill(memory, range(4)) == [0, 1]
        assert memory.blocked
        memory.allow_puts(3)
        assert fill(memory, range(4)) == [0]
        memory.allow_puts(None)
        assert fill(memory, range(4)) == [0, 1, 2, 3]

    def test_a_rank_without_enough_data_can_still_take_part(self, policy):
        memory = build(policy, watermark=5)
        assert draw(memory, 4, below_watermark=True) is None
        fill(memory, [1, 2])
        assert not memory.ready(4)
        assert draw(memory, 4) is None
        batch = draw(memory, 4, below_watermark=True)
        assert set(batch.simulations) <= {1, 2}

    def test_a_stop_withdraws_unseen_samples(self, policy):
        memory = build(policy)
        fill(memory, range(8))
        trained = memory.counters()["trained"]
        draw(memory, 2)
        trained = memory.counters()["trained"]
        assert memory.withdraw_all("stopped by the user") == 8 - trained
        assert memory.counters()["withdrawn"] == {"stopped by the user": 8 - trained}
        assert len(memory) == 0
        assert balanced(memory)
        assert memory.store.free == memory.store.slots

    def test_the_state_is_json_and_restores_the_random_sequence(self, policy):
        first = build(policy, seed=3)
        fill(first, range(8))
        draw(first, 4)
        state = json.loads(json.dumps(first.state()))
        unseen = first.counters()["unseen"]
        second = build(policy, seed=99)
        second.restore(state)
        assert second.counters()["withdrawn"] == (
            {"lost with an earlier server": unseen} if unseen else {}
        )
        assert balanced(second)
        third = build(policy, seed=5)
        third.restore(state)
        for memory in (second, third):
            fill(memory, range(8))
        assert draw(second, 4).simulations.tolist() == draw(third, 4).simulations.tolist()
        with pytest.raises(RunError, match="before the first sample"):
            second.restore(state)

    def test_out_arrays_are_checked(self, policy):
        memory = build(policy)
        fill(memory, range(8))
        for wrong in (np.empty((2, 3), "f4"), np.empty((4, 3), "f8"), np.empty((4, 2), "f4")):
            with pytest.raises(ValueError, match="needs"):
                memory.draw(4, {"u": wrong})
        assert memory.counters()["draws"] == 0

    def test_a_slot_that_was_not_acquired_is_refused(self, policy):
        memory = build(policy)
        with pytest.raises(ValueError, match="was not acquired"):
            memory.put(0, Sample(0, 0, [0, 0]))

    def test_same_seed_same_batches(self, policy):
        runs = []
        for _ in range(2):
            memory = build(policy, seed=11)
            fill(memory, range(8))
            runs.append(draw(memory, 5).simulations.tolist())
        assert runs[0] == runs[1]

    def test_waiting_ends_by_data_and_by_close(self, policy):
        memory = build(policy, watermark=1)
        assert not memory.wait_ready(1, timeout=0.01)
        thread = threading.Thread(target=fill, args=(memory, range(2)))
        thread.start()
        assert memory.wait_ready(1, timeout=30)
        thread.join()
        empty = build(policy)
        closer = threading.Thread(target=empty.close)
        closer.start()
        assert not empty.wait_ready(1)
        closer.join()


def test_fifo_keeps_the_order_and_ignores_the_watermark():
    memory = build("fifo", watermark=6)
    fill(memory, range(5))
    assert draw(memory, 2).simulations.tolist() == [0, 1]
    fill(memory, [7])
    assert draw(memory, 4).simulations.tolist() == [2, 3, 4, 7]
    assert draw(memory, 1) is None


def test_firo_leaves_the_watermark_behind():
    memory = build("firo", capacity=8, watermark=3)
    fill(memory, range(6))
    assert draw(memory, 4) is None
    first = draw(memory, 3).simulations
    assert len(memory) == 3
    memory.close()
    assert sorted([*first, *draw(memory, 3).simulations]) == list(range(6))


def test_firo_and_fifo_never_wait_for_more_than_fits():
    memory = build("firo", capacity=8, watermark=8)
    fill(memory, range(8))
    assert draw(memory, 4).count == 4
    for policy in ("fifo", "firo"):
        with pytest.raises(StudyError, match=r"training\.batch_size"):
            draw(build(policy, capacity=4), 5)


def test_reservoir_repeats_and_marks_first_time():
    memory = build(capacity=8, watermark=2)
    fill(memory, [3])
    assert draw(memory, 4) is None
    fill(memory, [4])
    known = set()
    for _ in range(20):
        batch = draw(memory, 4)
        assert batch.count == 4
        assert batch.first_time.tolist() == [s not in known for s in batch.simulations]
        known |= set(batch.simulations.tolist())
    assert len(memory) == 2
    assert memory.counters()["samples_drawn"] == 80


def test_reservoir_after_close_draws_without_replacement():
    memory = build(capacity=8)
    fill(memory, range(8))
    draw(memory, 8)
    memory.close()
    drawn = [*draw(memory, 5).simulations, *draw(memory, 5).simulations]
    assert sorted(drawn) == list(range(8))


def test_reservoir_draws_uniformly():
    memory = build(capacity=20, seed=4)
    fill(memory, range(20))
    counts = np.zeros(20)
    for _ in range(500):
        np.add.at(counts, draw(memory, 16).simulations, 1)
    assert stats.chisquare(counts).pvalue > 1e-4


def test_reservoir_evicts_uniformly_among_the_seen():
    survivors = np.zeros(10)
    for seed in range(800):
        memory = build(capacity=10, seed=seed)
        fill(memory, range(10))
        while memory.counters()["unseen"]:
            draw(memory, 10)
        assert len(fill(memory, range(100, 105))) == 5
        memory.close()
        left = draw(memory, 10).simulations
        assert set(range(100, 105)) <= set(left)
        survivors[[s for s in left if s < 10]] += 1
    assert survivors.sum() == 4000
    # Five survivors of ten: the counts are correlated, which shrinks the statistic by half.
    assert stats.chisquare(survivors).pvalue > 1e-3


def test_firo_removes_uniformly():
    counts = np.zeros(12)
    for seed in range(600):
        memory = build("firo", capacity=12, seed=seed)
        fill(memory, range(12))
        counts[draw(memory, 5).simulations] += 1
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("policy", ["fifo", "firo", "reservoir"])
def test_rows_stay_intact_while_both_threads_run(policy):
    """Each row is filled with its own number; a torn row would show two."""
    total, shape = 1500, (64, 32)
    store = SlotStore({"u": (shape, "f4")}, slots=19, n_inputs=1)
    memory = create(policy, store, capacity=16, watermark=8, seed=1)
    seen, errors = set(), []

    def ingest():
        for number in range(total):
            while (slot := store.acquire()) is None:
                memory.wait_room(0.01)
            store.row(slot, "u")[:] = number
            while not memory.put(slot, Sample(number, 0, [number])):
                memory.wait_room(10)
        memory.close()

    def train():
        out = {"u": np.empty((8, *shape), "f4")}
        while not memory.drained:
            slots = memory.take_arrivals()
            arrived, numbers = store.arrays["u"][slots], store.simulations[slots]
            if (arrived != numbers[:, None, None]).any():
                errors.append(numbers)
            if not memory.wait_ready(8, timeout=30):
                continue
            batch = memory.draw(8, out)
            rows = batch.fields["u"].reshape(batch.count, -1)
            if (rows != batch.simulations[:, None]).any() or (
                batch.inputs[:, 0] != batch.simulations
            ).any():
                errors.append(batch.simulations)
            seen.update(batch.simulations.tolist())

    threads = [threading.Thread(target=ingest), threading.Thread(target=train)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert not errors
    assert seen == set(range(total))
    assert memory.counters()["trained"] == total
    assert store.free == store.slots


@pytest.mark.parametrize("policy", ["fifo", "firo", "reservoir"])
def test_a_sample_that_left_before_the_arrivals_were_taken_is_not_among_them(policy):
    memory = build(policy, capacity=1)
    fill(memory, [1])
    draw(memory, 1)
    fill(memory, [2])
    taken = memory.take_arrivals()
    assert memory.store.simulations[taken].tolist() == [2]


def test_arrivals_are_not_overwritten_before_the_next_draw():
    memory = build(capacity=1)
    store = memory.store
    fill(memory, [1])
    draw(memory, 1)
    taken = memory.take_arrivals()
    fill(memory, [2, 3])
    # The first sample was evicted, and the third one was refused.
    free = [store.acquire() for _ in range(store.free)]
    assert len(free) == 1 and taken[0] not in free
    assert store.row(taken[0], "u")[0] == store.simulations[taken[0]] == 1
    draw(memory, 1)
    assert store.acquire() == taken[0]


def test_illegal_sizes_and_names_are_explained():
    store = SlotStore({}, slots=4, n_inputs=1)
    with pytest.raises(StudyError, match=r"did you mean 'reservoir'"):
        create("reservior", store, 3)
    with pytest.raises(StudyError, match=r"legal are 1 to 3"):
        Reservoir(store, 4)
    with pytest.raises(StudyError, match=r"reservoir\.watermark is 5"):
        FIRO(store, 3, watermark=5)
    assert isinstance(create("FIFO", store, 3), FIFO)

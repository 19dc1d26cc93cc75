"""A reservoir that prefers difficult samples: evictions, draws, and the weights that correct both on average."""

import numpy as np
import pytest

from melissa_gen.errors import StudyError
from melissa_gen.reservoir import Sample, SlotStore, WeightedReservoir, create
from melissa_gen.reservoir.loss_levels import LossLevels

NOTHING = {}


def build(capacity, seed, **options):
    store = SlotStore({"u": ((), "f4")}, capacity + 2, n_inputs=1)
    return WeightedReservoir(store, capacity, seed=seed, **options)


def put(memory, names):
    for name in names:
        assert memory.put(memory.store.acquire(), Sample(name, 0, [name]))


def learn_all(memory, losses):
    """Draws until every sample has been seen and has its loss."""
    while memory.counters()["unseen"]:
        batch = memory.draw(16, NOTHING)
        memory.update_losses(batch, losses[batch.simulations])


def names(memory):
    return sorted(memory.store.simulations[memory.slots()].tolist())


def test_the_hard_ones_are_retained():
    losses = np.array([1.0, 9.0, 1.0, 8.0, 1.0, 1.0])
    memory = build(6, seed=1, eviction="difficulty")
    put(memory, range(6))
    learn_all(memory, losses)
    put(memory, [10, 11, 12, 13])
    assert {1, 3} <= set(names(memory))
    # What was hard may have become easy: then it may go.
    batch = memory.draw(64, NOTHING)
    memory.update_losses(batch, np.where(batch.simulations >= 10, 9.0, 0.1))
    put(memory, [14, 15])
    assert not {1, 3} & set(names(memory))


def test_hard_samples_are_drawn_more_often():
    losses = np.array([1.0, 1.0, 6.0, 0.0])
    memory = build(4, seed=2, draws="difficulty")
    put(memory, range(4))
    learn_all(memory, losses)
    batch = memory.draw(20_000, NOTHING)
    share = np.bincount(batch.simulations) / batch.count
    np.testing.assert_allclose(share, 0.125 + 0.5 * losses / 8.0, atol=0.015)
    assert batch.weights.max() <= 2.0
    # With their weights the draws are uniform.
    total = np.bincount(batch.simulations, batch.weights) / batch.count
    np.testing.assert_allclose(total, 0.25, atol=0.015)


def test_weighted_survivors_match_uniform_eviction():
    """Three of six seen samples are evicted: each survives with probability 1/2 under uniform eviction."""
    losses = np.array([1.0, 2.0, 3.0, 4.0, 9.0, 9.5])
    runs, kept, total = 1500, np.zeros(6), np.zeros(6)
    for seed in range(runs):
        memory = build(6, seed, eviction="difficulty")
        put(memory, range(6))
        learn_all(memory, losses)
        put(memory, [10, 11, 12])
        memory.close()
        batch = memory.draw(9, NOTHING)
        old = batch.simulations < 6
        assert batch.weights[~old].tolist() == [1.0] * 3
        kept[batch.simulations[old]] += 1
        total[batch.simulations[old]] += batch.weights[old]
    assert kept[5] == runs and kept[0] < 0.35 * runs
    np.testing.assert_allclose(total / runs, 0.5, atol=0.05)


def test_the_loss_of_an_evicted_sample_is_ignored():
    memory = build(2, seed=3, eviction="difficulty")
    put(memory, [0, 1])
    while memory.counters()["unseen"]:
        batch = memory.draw(8, NOTHING)
    put(memory, [2, 3])
    memory.update_losses(batch, np.full(8, 7.0))
    assert np.isnan(memory.losses[memory.slots()]).all()


def test_losses_of_an_earlier_unit_are_converted():
    """What was hard on the old scale is easy on the new one, where it is compared with new losses."""
    losses = np.array([1.0, 9.0, 1.0, 8.0, 1.0, 1.0])
    memory = build(6, seed=1, eviction="difficulty", draws="difficulty")
    put(memory, range(5))
    learn_all(memory, losses)
    before = memory.losses[memory.slots()]
    weights = memory.rows().columns["survival"]
    memory.rescale_losses(1e-3)
    np.testing.assert_allclose(memory.losses[memory.slots()], 1e-3 * before)
    np.testing.assert_allclose(memory.rows().columns["survival"], weights)
    put(memory, [5])
    learn_all(memory, np.append(1e-3 * losses[:5], 1.0))
    put(memory, range(10, 15))
    assert names(memory) == [5, *range(10, 15)]


def test_only_a_reservoir_can_prefer_samples():
    store = SlotStore({"u": ((), "f4")}, 6, n_inputs=1)
    with pytest.raises(StudyError, match="fifo draws each sample only once"):
        create("fifo", store, 4, eviction="difficulty")
    assert isinstance(create("reservoir", store, 4, draws="difficulty"), WeightedReservoir)


def test_equal_losses_leave_all_samples_to_eviction():
    """The mean of equal numbers may be rounded to below all of them."""
    for loss in (0.1, 0.7, 1e-9, 3.3):
        memory = build(7, seed=4, eviction="difficulty")
        put(memory, range(7))
        learn_all(memory, np.full(7, loss))
        put(memory, range(10, 17))
        assert names(memory) == list(range(10, 17))


def test_loss_levels_hold_the_latest_level_of_each_slot():
    levels, random = LossLevels(50), np.random.default_rng(5)
    held = {}
    for slot, loss in zip(random.integers(50, size=600).tolist(), random.random(600), strict=True):
        level = -1 if loss < 0.3 else levels.level_of(np.nan if loss < 0.4 else loss)
        levels.put(slot, level)
        held[slot] = level
        known = [levels.values[one] for one in held.values() if one > 0]
        assert levels.counts.sum() == sum(one >= 0 for one in held.values())
        if known:
            assert levels.mean() == pytest.approx(np.mean(known))
            assert held[levels.choose(levels.values, random)] > 0
    assert levels.values[levels.level_of(0.5)] == pytest.approx(0.5, rel=0.03)

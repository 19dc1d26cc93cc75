"""Difficulty from first-pass losses: known values, detrending, and unusual input."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melissa_gen.sampling import DifficultyTracker
from melissa_gen.sampling.acquisition.difficulty import delta_loss


def test_delta_loss_known_values():
    found = delta_loss(np.array([1.0, 1.0, 1.0, 5.0]))
    np.testing.assert_allclose(found, [0.0, 0.0, 0.0, np.sqrt(3.0)])
    assert delta_loss(np.full(5, 0.3)).tolist() == [0.0] * 5
    assert delta_loss(np.empty(0)).shape == (0,)


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=30), st.floats(1e-3, 1e3))
def test_delta_loss_is_not_negative_and_has_no_scale(losses, factor):
    first, second = delta_loss(np.array(losses)), delta_loss(factor * np.array(losses))
    assert (first >= 0.0).all()
    np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-3)


def test_exponential_mean_per_simulation():
    tracker = DifficultyTracker("delta_loss", alpha=0.3)
    tracker.observe([1, 2], np.array([0.0, 2.0]))  # z scores -1 and 1
    assert tracker.difficulty(1) == 0.0 and tracker.difficulty(2) == pytest.approx(1.0)
    tracker.observe([2, 1], np.array([0.0, 2.0]))
    assert tracker.difficulty(1) == pytest.approx(0.3)
    assert tracker.difficulty(2) == pytest.approx(0.7)
    assert tracker.samples(1) == 2 and tracker.samples(3) == 0
    assert np.isnan(tracker.difficulty(3))


def test_early_simulations_are_not_harder_for_being_early(rng):
    """All losses fall a hundredfold; the same simulation scores alike early and late."""
    tracker = DifficultyTracker(window=50.0)
    scores = []
    for batch in range(200):
        level = 0.01 ** (batch / 200)
        hard = 3.0 if batch in (20, 180) else 1.0
        numbers = [10_000 + batch, *range(batch * 9, batch * 9 + 9)]
        losses = level * np.array([hard, *np.ones(9)]) * np.exp(0.05 * rng.standard_normal(10))
        tracker.observe(numbers, losses)
        if hard > 1.0:
            scores.append(tracker.difficulty(10_000 + batch))
    assert scores[0] == pytest.approx(scores[1], rel=0.2)
    assert scores[0] > 2.0
    assert tracker.difficulty(100) == pytest.approx(tracker.difficulty(1700), rel=0.35)


def test_losses_that_are_no_numbers_are_left_out():
    tracker = DifficultyTracker()
    tracker.observe([1, 2, 3, 4], np.array([np.nan, np.inf, -1.0, 1.0]))
    assert np.isnan([tracker.difficulty(s) for s in (1, 2, 3)]).all()
    assert tracker.difficulty(4) == pytest.approx(1.0) and tracker.level == pytest.approx(1.0)
    tracker.observe([], np.empty(0))
    tracker.observe([5], np.array([0.0]))
    assert tracker.difficulty(5) == 0.0


def test_all_zero_losses():
    tracker = DifficultyTracker()
    tracker.observe([1], np.array([0.0]))
    assert tracker.difficulty(1) == 0.0


def test_excess_from_elsewhere():
    tracker = DifficultyTracker("delta_loss")
    tracker.observe([1, 2, 3], np.ones(3), np.array([2.0, -1.0, np.nan]))
    assert [tracker.difficulty(s) for s in (1, 2)] == [2.0, 0.0] and tracker.samples(3) == 0
    plain = DifficultyTracker("loss")
    plain.observe([1, 2], np.array([1.0, 3.0]), np.array([9.0, 9.0]))
    assert plain.difficulty(2) == pytest.approx(1.5)


def test_changed_difficulties_are_returned_once():
    tracker = DifficultyTracker()
    tracker.observe([3, 1, 3], np.ones(3))
    assert tracker.take_changed() == [1, 3] and tracker.take_changed() == []


def test_state_round_trip(rng):
    tracker, other = DifficultyTracker(), DifficultyTracker()
    tracker.observe([3, 1, 3], rng.random(3))
    state = tracker.state()
    assert json.loads(json.dumps(state["level"])) == state["level"]
    other.restore(state)
    for one in (tracker, other):
        one.observe([1, 7], np.array([0.2, 0.4]))
    assert [tracker.difficulty(s) for s in (1, 3, 7)] == [other.difficulty(s) for s in (1, 3, 7)]
    assert tracker.take_changed() == other.take_changed() and tracker.level == other.level
    np.testing.assert_array_equal(tracker.mean_losses(), other.mean_losses())


def test_mean_losses_are_those_of_the_samples_without_any_scale():
    tracker = DifficultyTracker()
    tracker.observe([2, 0], np.array([4.0, 1.0]))
    tracker.observe([2], np.array([2.0]))
    np.testing.assert_array_equal(tracker.mean_losses(), [1.0, np.nan, 3.0])


def test_illegal_settings():
    for settings in ({"signal": "los"}, {"alpha": 0.0}, {"window": 0.1}):
        with pytest.raises(ValueError):
            DifficultyTracker(**settings)
    with pytest.raises(ValueError):
        DifficultyTracker().observe([1], np.ones(2))

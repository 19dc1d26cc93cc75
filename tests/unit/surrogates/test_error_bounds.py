"""Bounds of the error by weighted conformal prediction from the errors of first passes."""

import numpy as np
import pytest

from melissa_gen.errors import DataError
from melissa_gen.surrogates import FirstErrors, Surrogate, load, save

LEVELS = (0.8, 0.9, 0.95)
BOUNDS = {"a": (0.0, 2.0), "viscosity": (0.01, 1.0)}


def scale_of(unit):
    """A tenfold larger error in a corner, where a sampler draws more."""
    return 0.02 * (1.0 + 9.0 * (unit[:, 0] > 0.7) * (unit[:, 1] > 0.5))


def drawn(rng, n, share):
    """Points of which a share is in the corner, and their weights p/q."""
    unit = rng.random((n, 2))
    moved = rng.random(n) < share
    unit[moved] = np.array([0.7, 0.5]) + unit[moved] * np.array([0.3, 0.5])
    inside = (unit[:, 0] > 0.7) & (unit[:, 1] > 0.5)
    return unit, 1.0 / (1.0 - share + inside * share / 0.15)


def surrogate_with(errors):
    surrogate = Surrogate(
        BOUNDS, (0, 1), {"u": (3,)}, arguments={"hidden": [4]}, logarithmic=["viscosity"]
    )
    surrogate.first_errors = errors
    return surrogate


def physical(unit):
    return np.column_stack([2.0 * unit[:, 0], 0.01 * 100.0 ** unit[:, 1]])


def first_errors(rng, n=320, share=0.6, decrease=0.0):
    unit, weights = drawn(rng, n, share)
    errors = scale_of(unit) * rng.lognormal(0.0, 0.5, n)
    numbers = np.arange(n)
    kept = FirstErrors.needed(n)
    aged = errors * np.exp(decrease * (n - 1 - numbers) / n)
    return FirstErrors(physical(unit)[kept], aged[kept], weights[kept], "nrmse")


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_draws_of_the_prior_stay_below_the_bound_as_often_as_it_says(share):
    covered = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        surrogate = surrogate_with(first_errors(rng, share=share))
        unit = rng.random((400, 2))
        true = scale_of(unit) * rng.lognormal(0.0, 0.5, 400)
        a, viscosity = physical(unit).T
        covered.append(
            [
                np.mean(true <= surrogate.error_bound({"a": a, "viscosity": viscosity}, level))
                for level in LEVELS
            ]
        )
    np.testing.assert_allclose(np.mean(covered, axis=0), LEVELS, atol=0.02)


def test_bounds_from_few_simulations_are_not_too_high():
    covered = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        errors, true = rng.lognormal(0.0, 0.5, 30), rng.lognormal(0.0, 0.5, 100)
        own, unit = rng.random((30, 2)), rng.random((100, 2))
        first = FirstErrors(own, errors, np.ones(30), "nrmse")
        covered.append([np.mean(true <= first.bound(unit, own, level)) for level in LEVELS])
    np.testing.assert_allclose(np.mean(covered, axis=0), LEVELS, atol=0.012)


def test_without_importance_weights_the_bounds_would_not_be_those_of_the_prior():
    covered = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        # In the corner, which is 15 % of the prior and 66 % of the draws, errors vary more.
        unit, weights = drawn(rng, 400, 0.6)
        test = rng.random((400, 2))
        spread, of_test = (0.2 + 1.3 * (scale_of(u) > 0.1) for u in (unit, test))
        errors, true = rng.lognormal(0.0, spread), rng.lognormal(0.0, of_test)
        columns = dict(zip(BOUNDS, physical(test).T, strict=True))
        for given in (weights, np.ones(400)):
            known = FirstErrors(physical(unit), errors, given, "nrmse")
            bound = surrogate_with(known).error_bound(columns, 0.8)
            covered.append(np.mean(true <= bound))
    assert np.mean(covered[::2]) == pytest.approx(0.8, abs=0.03) and np.mean(covered[1::2]) > 0.86


def test_bounds_are_larger_where_errors_are_larger_and_for_a_higher_level():
    surrogate = surrogate_with(first_errors(np.random.default_rng(2), n=600))
    hard = surrogate.error_bound({"a": 1.8, "viscosity": 0.6})
    easy = surrogate.error_bound({"a": 0.3, "viscosity": 0.02})
    assert hard.shape == () and hard > 4 * easy > 0.02
    assert surrogate.error_bound({"a": 1.8, "viscosity": 0.6}, level=0.95) > hard
    grid = surrogate.error_bound({"a": np.zeros((3, 1)), "viscosity": np.full(5, 0.1)})
    assert grid.shape == (3, 5)


def test_only_the_newest_simulations_count():
    early = first_errors(np.random.default_rng(3), n=400, decrease=0.0)
    late = first_errors(np.random.default_rng(3), n=400, decrease=4.0)
    point = {"a": 0.5, "viscosity": 0.05}
    # The newest quarter was larger than at the end by √e on average; all of them by a factor of e².
    ratio = surrogate_with(late).error_bound(point) / surrogate_with(early).error_bound(point)
    assert 1.2 < ratio < 2.7


def test_too_few_simulations_bound_nothing():
    surrogate = surrogate_with(first_errors(np.random.default_rng(4), n=12, share=0.0))
    point = {"a": 0.5, "viscosity": 0.05}
    assert np.isfinite(surrogate.error_bound(point, 0.8))
    assert surrogate.error_bound(point, 0.95) == np.inf


def test_at_most_two_thousand_simulations_are_needed():
    assert FirstErrors.needed(7).tolist() == list(range(7))
    assert FirstErrors.needed(100).tolist() == list(range(70, 100))
    assert FirstErrors.needed(400).tolist() == list(range(300, 400))
    kept = FirstErrors.needed(1_000_000)
    assert len(kept) == 2000 and kept[0] == 750_000 and kept[-1] == 999_999


def test_a_saved_surrogate_keeps_its_bounds(tmp_path):
    surrogate = surrogate_with(first_errors(np.random.default_rng(5)))
    save(surrogate, tmp_path)
    point = {"a": [0.5, 1.9], "viscosity": 0.9}
    np.testing.assert_array_equal(load(tmp_path).error_bound(point), surrogate.error_bound(point))
    surrogate.first_errors = None
    save(surrogate, tmp_path)
    assert load(tmp_path).first_errors is None


def test_a_damaged_file_is_named(tmp_path):
    save(surrogate_with(first_errors(np.random.default_rng(5))), tmp_path)
    (tmp_path / "first_errors.npz").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"first_errors\.npz can't be read"):
        load(tmp_path)


@pytest.mark.parametrize(
    "errors, point, level, said",
    [
        (None, {"a": 1.0, "viscosity": 0.1}, 0.9, "set training.metric"),
        (1, {"a": 1.0, "viscosity": 0.1}, 1.0, "level is 1"),
        (1, {"a": 1.0, "viscosty": 0.1}, 0.9, "did you mean 'viscosity'"),
    ],
)
def test_what_is_missing_is_said(errors, point, level, said):
    known = first_errors(np.random.default_rng(6)) if errors else None
    with pytest.raises(DataError, match=said):
        surrogate_with(known).error_bound(point, level)

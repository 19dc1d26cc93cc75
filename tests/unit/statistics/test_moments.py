"""Moments, covariances, ranges and quantiles in one pass, against numpy on all samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melissa_gen.statistics import ChosenStatistics, FieldStatistics

SHAPE, STEPS, PARAMETERS = (3, 2), 2, 2
SELECTION = ChosenStatistics(
    order=4, thresholds=(0.0, 1.0), quantiles=(0.1, 0.5, 0.9), covariances=PARAMETERS
)


def samples(count, seed=0, offset=0.0):
    """Values (n, t, *shape) that depend on the parameters (n, d), and weights (n,)."""
    rng = np.random.default_rng(seed)
    parameters = rng.normal(size=(count, PARAMETERS))
    noise = rng.normal(size=(count, STEPS, *SHAPE))
    values = parameters[:, 0, None, None, None] * 2.0 + np.exp(0.3 * noise) + offset
    return values, parameters, rng.uniform(0.1, 3.0, count)


def statistics_of(values, parameters, weights, first=0, into=None):
    found = into or FieldStatistics(STEPS, SHAPE, SELECTION, "float64")
    for n in range(len(values)):
        for step in range(STEPS):
            found.update(first + n, step, values[n, step], parameters[n], float(weights[n]))
    return found


def assert_close(one, other, rtol=1e-9, without=()):
    assert one.keys() == other.keys()
    for name in one:
        if not name.startswith(without or ("-",)):
            np.testing.assert_allclose(one[name], other[name], rtol, 1e-12, err_msg=name)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_one_pass_equals_two_passes(offset):
    values, parameters, _ = samples(200, offset=offset)
    found = statistics_of(values, parameters, np.ones(200)).results()
    mean, std = values.mean(axis=0), values.std(axis=0)
    scaled = (values - mean) / std
    np.testing.assert_array_equal(found["count"], 200)
    np.testing.assert_allclose(found["mean"], mean)
    tolerance = 1e-9 if offset == 0.0 else 1e-6
    np.testing.assert_allclose(found["variance"], values.var(axis=0, ddof=1), tolerance)
    np.testing.assert_allclose(found["skewness"], (scaled**3).mean(axis=0), tolerance, 1e-6)
    np.testing.assert_allclose(found["kurtosis"], (scaled**4).mean(axis=0), tolerance)
    np.testing.assert_array_equal(found["minimum"], values.min(axis=0))
    np.testing.assert_array_equal(found["maximum"], values.max(axis=0))
    for level, threshold in enumerate(SELECTION.thresholds):
        share = (values > threshold).mean(axis=0)
        np.testing.assert_allclose(found["exceedance"][:, level], share)
    for step in range(STEPS):
        for point in np.ndindex(SHAPE):
            column = values[(slice(None), step, *point)]
            both = np.cov(np.column_stack([parameters, column]).T)
            np.testing.assert_allclose(
                found["covariance"][(step, slice(None), *point)], both[-1, :-1], 1e-6
            )
            both = np.corrcoef(np.column_stack([parameters, column]).T)
            np.testing.assert_allclose(
                found["correlation"][(step, slice(None), *point)], both[-1, :-1], 1e-6
            )


def test_integer_weights_equal_repeated_samples():
    values, parameters, _ = samples(40)
    repeats = np.random.default_rng(1).integers(1, 4, 40)
    weighted = statistics_of(values, parameters, repeats.astype(float)).results()
    rows = np.repeat(np.arange(40), repeats)
    repeated = statistics_of(values[rows], parameters[rows], np.ones(len(rows))).results()
    for name in ("mean", "skewness", "kurtosis", "exceedance", "correlation", "minimum"):
        np.testing.assert_allclose(weighted[name], repeated[name], 1e-9, 1e-12, err_msg=name)


@given(
    split=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
)
def test_merged_ranks_equal_one_rank(split, seed):
    count = max(sum(split), 2)
    split = [*split, count - sum(split)]
    values, parameters, weights = samples(count, seed)
    whole = statistics_of(values, parameters, weights).results()
    merged = FieldStatistics(STEPS, SHAPE, SELECTION, "float64")
    begin = 0
    for size in split:
        part = slice(begin, begin + size)
        merged.merge(statistics_of(values[part], parameters[part], weights[part], begin))
        begin += size
    assert_close(whole, merged.results(), 1e-7, without=("quantile",))


@pytest.mark.parametrize("draw", ["normal", "exponential"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("count", [1, 5, 12, 24])
def test_quantiles_of_a_few_samples_are_nearly_those_of_the_samples(draw, weighted, count):
    points, levels = 2000, (0.2, 0.5)
    rng = np.random.default_rng(7)
    values = getattr(rng, draw)(size=(count, points))
    weights = rng.choice([0.0, 1.0, 2.0], count) if weighted else np.ones(count)
    weights[-1] = 1.0
    found = FieldStatistics(1, (points,), ChosenStatistics(quantiles=levels), "float64")
    for n in range(count):
        found.update(n, 0, values[n], np.zeros(0), float(weights[n]))
    exact = np.quantile(getattr(rng, draw)(size=1_000_000), levels)[:, None]
    repeated = np.repeat(values, weights.astype(int), axis=0)
    error = found.results()["quantile"][0] - exact
    kept = np.quantile(repeated, levels, axis=0) - exact
    for one, other in zip(error, kept, strict=True):
        assert np.sqrt(np.mean(one**2)) < 1.3 * np.sqrt(np.mean(other**2))


@given(cut=st.integers(0, 30), seed=st.integers(0, 1000))
def test_a_resumed_pass_equals_one_without_interruption_bit_by_bit(cut, seed):
    values, parameters, weights = samples(30, seed)
    whole = statistics_of(values, parameters, weights)
    first = statistics_of(values[:cut], parameters[:cut], weights[:cut])
    state = first.state()
    statistics_of(values[cut:], parameters[cut:], weights[cut:], cut, first)  # state is a copy
    resumed = FieldStatistics(STEPS, SHAPE, SELECTION, "float64")
    resumed.restore(state)
    statistics_of(values[cut:], parameters[cut:], weights[cut:], cut, resumed)
    for name, array in whole.results().items():
        np.testing.assert_array_equal(array, resumed.results()[name], err_msg=name)


@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30),
    scale=st.floats(0.1, 10.0),
    weight=st.floats(0.1, 10.0),
)
def test_invariants(values, scale, weight):
    found = FieldStatistics(1, (1,), ChosenStatistics(quantiles=(0.2, 0.8)), "float64")
    scaled = FieldStatistics(1, (1,), ChosenStatistics(quantiles=(0.2, 0.8)), "float64")
    for n, value in enumerate(values):
        found.update(n, 0, np.array([value]), np.zeros(1), 1.0)
        scaled.update(n, 0, np.array([value * scale]), np.zeros(1), weight)
    one, other = found.results(), scaled.results()
    size = np.abs(values).max() + 1e-300
    assert one["minimum"] <= one["mean"] + 1e-9 * size
    assert one["mean"] <= one["maximum"] + 1e-9 * size
    assert np.all(one["quantile"] >= one["minimum"]) and np.all(one["quantile"] <= one["maximum"])
    assert one["variance"] >= 0.0
    # Units of the field and of the weights have no effect.
    np.testing.assert_allclose(other["mean"], one["mean"] * scale, 1e-9, 1e-9 * size)
    np.testing.assert_allclose(other["variance"], one["variance"] * scale**2, 1e-6, 1e-9 * size**2)
    np.testing.assert_allclose(other["effective_size"], len(values))


def test_too_few_samples_are_no_numbers():
    found = FieldStatistics(2, (1,), SELECTION)
    found.update(0, 0, np.ones(1), np.zeros(PARAMETERS), 1.0)
    results = found.results()
    assert results["mean"][0] == 1.0 and np.isnan(results["mean"][1])
    assert np.isnan(results["variance"]).all() and np.isnan(results["quantile_error"]).all()
    assert np.isnan(results["minimum"][1]) and np.isnan(results["exceedance"][1]).all()


@pytest.mark.parametrize("draw", ["normal", "uniform", "exponential"])
def test_quantiles_are_within_their_stated_error(draw):
    points = 400
    rng = np.random.default_rng(5)
    values = getattr(rng, draw)(size=(1000, points))
    levels = (0.05, 0.5, 0.95)
    found = FieldStatistics(1, (points,), ChosenStatistics(quantiles=levels), "float64")
    for n in range(1000):
        found.update(n, 0, values[n], np.zeros(0), 1.0)
    results = found.results()
    exact = np.quantile(getattr(rng, draw)(size=1_000_000), levels)
    for level in range(3):
        error = np.abs(results["quantile"][0, level] - exact[level])
        assert np.mean(error < 2 * results["quantile_error"][0, level]) > 0.75
        # The error is close to that of the quantile of all samples.
        kept = np.abs(np.quantile(values, levels[level], axis=0) - exact[level])
        assert np.sqrt(np.mean(error**2)) < 1.4 * np.sqrt(np.mean(kept**2))


def test_a_state_of_other_fields_is_refused():
    one, other = (FieldStatistics(STEPS, shape, SELECTION) for shape in ((3,), (4,)))
    with pytest.raises(ValueError, match=r"sum_1 of the statistics is \(2, 3\); \(2, 4\)"):
        other.restore(one.state())


def test_the_stated_memory_is_that_of_the_arrays():
    selection = ChosenStatistics(3, (1.0,), (0.5,), covariances=2, sobol=3, open_groups=2)
    found = FieldStatistics(10, (200, 5), selection)
    # Two groups of the Sobol indices are open, and as many samples wait as can.
    for step in range(10):
        for simulation in [0, 5] * 3 + [0]:
            found.update(simulation, step, np.ones((200, 5)), np.zeros(2), 1.0)

    def bytes_of(state):
        if isinstance(state, dict):
            return sum(bytes_of(value) for value in state.values())
        return state.nbytes

    stated = selection.megabytes(10, (200, 5)) * 1e6
    room = 10 * 200 * 5 * 4  # for the sample with which those that wait are included
    assert stated == pytest.approx(bytes_of(found.state()) + room, rel=0.01)

"""The ensemble and the failure model: learning, gradients, and unusual data."""

import time

import numpy as np
import pytest

from melissa_gen.sampling.acquisition.difficulty_ensemble import (
    DifficultyEnsemble,
    importance_weights,
    log_difficulty,
    recency_weights,
)
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.acquisition.failure_avoidance import FailureAvoidance
from melissa_gen.sampling.acquisition.skill import rank_correlation


def table(unit, difficulty, log_ratio=None):
    n = len(unit)
    return EvidenceTable(
        simulation=np.arange(n),
        unit=np.asarray(unit, dtype=float),
        difficulty=np.asarray(difficulty, dtype=float),
        samples=np.ones(n, dtype=np.int64),
        log_ratio=np.zeros(n) if log_ratio is None else log_ratio,
        fresh=np.ones(n, dtype=bool),
    )


def finite_differences(acquisition, unit, step):
    gradient = np.empty_like(unit)
    for axis in range(unit.shape[1]):
        shift = np.zeros(unit.shape[1])
        shift[axis] = step
        gradient[:, axis] = acquisition.value(unit + shift) - acquisition.value(unit - shift)
    return gradient / (2.0 * step)


def smooth(unit):
    return np.sin(5.0 * unit[:, 0]) - 2.0 * unit[:, 1]


def test_learns_log_difficulty_and_its_gradient(rng):
    unit, other = rng.random((200, 3)), rng.random((300, 3))
    ensemble = DifficultyEnsemble(3, kappa=0.0)
    ensemble.fit(table(unit, np.exp(smooth(unit))), rng)
    assert np.corrcoef(ensemble.value(other), smooth(other))[0, 1] > 0.98
    value, gradient = ensemble.value_and_gradient(other)
    np.testing.assert_allclose(value, ensemble.value(other), rtol=1e-6)
    expected = finite_differences(ensemble, other, 1e-3)
    np.testing.assert_allclose(gradient, expected, atol=0.03 * np.abs(expected).max())


def test_gradient_with_spread(rng):
    unit = rng.random((30, 2))
    ensemble = DifficultyEnsemble(2, kappa=2.0)
    ensemble.fit(table(unit, np.exp(smooth(unit))), rng)
    other = rng.random((100, 2))
    expected = finite_differences(ensemble, other, 1e-3)
    gradient = ensemble.value_and_gradient(other)[1]
    # The spread has kinks where members cross, and single precision its noise.
    assert np.median(np.abs(gradient - expected)) < 0.02 * np.abs(expected).max()


def test_the_spread_is_larger_away_from_the_records(rng):
    unit = np.column_stack([0.3 * rng.random(60), rng.random(60)])
    certain, curious = (DifficultyEnsemble(2, kappa=kappa) for kappa in (0.0, 1.0))
    for one in (certain, curious):
        one.fit(table(unit, np.exp(smooth(unit))), np.random.default_rng(0))
    near, far = np.array([[0.15, 0.5]]), np.array([[0.95, 0.5]])
    spread = [float((curious.value(u) - certain.value(u))[0]) for u in (near, far)]
    assert spread[0] >= 0.0 and spread[1] > 2.0 * spread[0]


@pytest.mark.parametrize(
    "unit, difficulty",
    [
        (np.empty((0, 2)), []),
        ([[0.5, 0.5]], [1.0]),
        (np.full((9, 2), 0.5), np.full(9, 2.0)),
        (np.linspace(0, 1, 10).reshape(5, 2), np.zeros(5)),
        (np.linspace(0, 1, 10).reshape(5, 2), np.full(5, np.nan)),
    ],
)
def test_no_difference_is_flat(unit, difficulty, rng):
    acquisition = FailureAvoidance(DifficultyEnsemble(2))
    acquisition.fit(table(unit, difficulty), rng)
    assert acquisition.flat


def test_contradicting_records_are_averaged(rng):
    ensemble = DifficultyEnsemble(1, kappa=0.0)
    ensemble.fit(table(np.full((40, 1), 0.5), np.exp([-1.0, 1.0] * 20)), rng)
    assert abs(ensemble.value(np.array([[0.5]]))[0]) < 0.6


def test_newer_records_count_more(rng):
    unit = np.tile(np.linspace(0, 1, 20)[:, None], (4, 1))
    old, new = np.exp(2.0 * unit[:40, 0]), np.exp(-2.0 * unit[40:, 0])
    ensemble = DifficultyEnsemble(1, kappa=0.0, half_life=10.0)
    ensemble.fit(table(unit, np.concatenate([old, new])), rng)
    left, right = ensemble.value(np.array([[0.1], [0.9]]))
    assert left > right + 1.0


def test_weights_and_logs():
    np.testing.assert_allclose(recency_weights(3, 1.0), [0.25, 0.5, 1.0])
    weights = importance_weights(np.array([0.0, 50.0, -50.0]))
    assert weights.mean() == pytest.approx(1.0)
    assert weights[1] / weights[2] == pytest.approx(100.0)
    found = log_difficulty(np.array([0.0, 1.0, 2.0, 3.0]))
    assert found[0] == pytest.approx(np.log(2e-3)) and found[1] == 0.0


def test_a_refit_is_quick(rng):
    """Well under a fifth of a second on a free core; the bound here allows for a busy one."""
    unit = rng.random((300, 5))
    ensemble = DifficultyEnsemble(5)
    ensemble.fit(table(unit, np.exp(smooth(unit))), rng)
    start = time.process_time()
    ensemble.fit(table(unit, np.exp(smooth(unit))), rng)
    seconds = time.process_time() - start
    print(f"refit on 300 records: {seconds:.3f} s")
    assert seconds < 1.0


def test_failures_push_away_and_successes_pull_back(rng):
    unit = rng.random((80, 2))
    difficulty = np.exp(smooth(unit))
    bad = np.linalg.norm(unit - 0.2, axis=1) < 0.3
    plain, careful = DifficultyEnsemble(2), FailureAvoidance(DifficultyEnsemble(2))
    data = table(unit, np.where(bad, np.nan, difficulty))
    plain.fit(data, np.random.default_rng(0))
    careful.fit(data, np.random.default_rng(0))
    there, elsewhere = np.array([[0.2, 0.2]]), np.array([[0.85, 0.85]])
    lowered = [float((careful.value(u) - plain.value(u))[0]) for u in (there, elsewhere)]
    assert lowered[0] < -0.8 and -0.1 < lowered[1] <= 0.0
    other = rng.random((50, 2))
    inner = plain.value_and_gradient(other)[1]
    found = careful.value_and_gradient(other)[1] - inner

    class Difference:
        def value(self, u):
            return careful.value(u) - plain.value(u)

    np.testing.assert_allclose(found, finite_differences(Difference(), other, 1e-5), atol=1e-4)


def test_rank_correlation():
    a = np.array([1.0, 2.0, 3.0, 4.0])
    assert rank_correlation(a, np.exp(a)) == pytest.approx(1.0)
    assert rank_correlation(a, -(a**3)) == pytest.approx(-1.0)
    assert rank_correlation(a, np.ones(4)) == 0.0

"""Acquisitions per cost: run times that differ, that do not, and simulations that fail."""

import numpy as np
import pytest

from melissa_gen.errors import StudyError
from melissa_gen.sampling import Evidence, Prior, create
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.acquisition.run_times import PerRunTime

SQUARE = {name: {"low": 0.0, "high": 1.0} for name in "ab"}
BLIND = {"guide": "difficulty", "beta": 1.0}


def slower_to_the_right(unit):
    """Run times from 1 to 16 s."""
    return 16.0 ** unit[:, 0]


def noise_of(rng, n):
    return np.exp(0.1 * rng.standard_normal(n))


def table(unit, difficulty, seconds):
    n = len(unit)
    columns = (np.arange(n), unit, difficulty, np.ones(n, int), np.zeros(n), np.ones(n, bool))
    return EvidenceTable(*columns, seconds=seconds)


def loop(seconds, rng, fails=None, rounds=16, size=10, **arguments):
    """A closed loop in which all simulations are as difficult above b = 0.5 as they are easy below; returns its points.

    As in a study, the run time of a simulation is known after its first difficulty.
    """
    prior = Prior.from_mapping(SQUARE)
    sampler = create("adaptive", prior, 3, arguments={**BLIND, "gate": False, **arguments})
    found = []
    for number in range(rounds):
        points = sampler.suggest(size).points
        found.append(points)
        difficulty = np.where(points[:, 1] > 0.5, 8.0, 1.0) * noise_of(rng, size)
        failed = np.zeros(size, bool) if fails is None else fails(points)
        took = seconds(points) * noise_of(rng, size)
        for samples, known in ((1, np.full(size, np.nan)), (4, took)):
            sampler.ingest(
                Evidence(
                    number * size + k, point, difficulty[k], samples, failed[k], seconds=known[k]
                )
                for k, point in enumerate(points)
            )
    return np.concatenate(found[rounds // 2 :]), sampler


def test_fewer_simulations_are_proposed_where_they_are_slow(rng):
    equal, _ = loop(slower_to_the_right, rng)
    per_cost, sampler = loop(slower_to_the_right, rng, cost="measured")
    # With 0.9 of the points from p a / 16^x, the mean of x is 0.1 · 0.5 + 0.9 · 0.294; without costs it is 0.5.
    assert equal[:, 0].mean() == pytest.approx(0.5, abs=0.06)
    assert per_cost[:, 0].mean() == pytest.approx(0.315, abs=0.06)
    # The difficulty still counts: of 8 : 1, 0.85 of the points are expected.
    assert (per_cost[:, 1] > 0.5).mean() == pytest.approx(0.85, abs=0.08)
    assert sampler.diagnostics()["run_time_explained"] > 0.9


def test_run_times_that_do_not_depend_on_the_parameters_have_no_effect():
    per_cost, equal = (
        loop(lambda points: np.full(len(points), 3.0), np.random.default_rng(8), cost=cost)
        for cost in ("measured", "equal")
    )
    np.testing.assert_array_equal(per_cost[0], equal[0])
    assert per_cost[1].diagnostics()["run_time_explained"] == 0.0


def test_unknown_run_times_have_no_effect():
    nothing, rng = lambda points: np.full(len(points), np.nan), np.random.default_rng
    per_cost = loop(nothing, rng(8), cost="measured")[0]
    np.testing.assert_array_equal(per_cost, loop(nothing, rng(8))[0])


def test_failures_are_avoided_although_they_are_cheap(rng):
    def fails(points):
        return points[:, 0] < 0.25

    free = loop(slower_to_the_right, np.random.default_rng(8), cost="measured")[0]
    found, sampler = loop(slower_to_the_right, rng, fails=fails, cost="measured")
    assert fails(found).mean() < 0.75 * fails(free).mean()
    # The others are still proposed where they are fast.
    assert found[~fails(found), 0].mean() < 0.6
    assert sampler.diagnostics()["failed"] > 0


def test_the_density_is_that_of_the_acquisition_per_cost(rng):
    sampler = loop(slower_to_the_right, rng, cost="measured")[1]
    unit = rng.random((20_000, 2))
    density = np.exp(sampler.log_density(unit))
    assert density.mean() == pytest.approx(1.0, abs=0.05)
    left, right = (
        density[(abs(unit[:, 0] - x) < 0.05) & (unit[:, 1] > 0.6)].mean() for x in (0.2, 0.8)
    )
    # 0.1 of the points come from the prior.
    assert (left - 0.1) / (right - 0.1) == pytest.approx(16.0**0.6, rel=0.25)


def test_the_gradient_includes_the_cost(acquisitions, rng):
    unit = rng.random((60, 2))
    acquisition = PerRunTime(acquisitions["linear"](1.5))
    acquisition.fit(table(unit, np.ones(60), slower_to_the_right(unit)), rng)
    points, step = 0.1 + 0.8 * rng.random((20, 2)), 1e-5
    value, gradient = acquisition.value_and_gradient(points)
    np.testing.assert_allclose(value, acquisition.value(points))
    for axis in range(2):
        moved = np.eye(2)[axis] * step
        slope = (acquisition.value(points + moved) - acquisition.value(points - moved)) / (2 * step)
        np.testing.assert_allclose(gradient[:, axis], slope, atol=1e-4)
    # The prediction of the difficulty, from which the gate follows, has no cost.
    np.testing.assert_allclose(acquisition.difficulty(points), 1.5 * points.sum(axis=1))
    assert np.corrcoef(value - acquisition.difficulty(points), -points[:, 0])[0, 1] > 0.98


def test_a_restored_sampler_continues_with_the_run_times(rng):
    sampler = loop(slower_to_the_right, rng, cost="measured")[1]
    other = create(
        "adaptive",
        Prior.from_mapping(SQUARE),
        3,
        arguments={**BLIND, "gate": False, "cost": "measured"},
    )
    other.restore(sampler.state())
    np.testing.assert_array_equal(sampler.suggest(20).points, other.suggest(20).points)


def test_a_method_without_an_acquisition_knows_no_cost():
    with pytest.raises(
        StudyError, match=r"sampler\.arguments\.cost is not an argument of the method 'sobol'"
    ):
        create("sobol", Prior.from_mapping(SQUARE), 3, arguments={"cost": "measured"})

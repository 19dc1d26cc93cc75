"""The acquisition that regresses difficulties on features of the surrogate."""

import numpy as np
import pytest

from melissa_gen.errors import DataError
from melissa_gen.sampling import Evidence, Prior, create, split_state
from melissa_gen.sampling.acquisition.difficulty_ensemble import DifficultyEnsemble
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.acquisition.feature_regression import FeatureRegression
from melissa_gen.sampling.acquisition.kernel_interpolation import KernelInterpolant
from melissa_gen.sampling.acquisition.skill import rank_correlation

AXES = 3


class Bowl:
    """Novelty rises with the distance from a point; a second feature falls along the first axis."""

    names = ("novelty", "magnitude")
    costly = False

    def features(self, unit):
        return np.stack([2.0 * ((unit - 0.3) ** 2).sum(axis=1), 1.0 - unit[:, 0]], axis=1)

    def features_and_pullback(self, unit):
        def back(slope):
            found = slope[:, :1] * 4.0 * (unit - 0.3)
            found[:, 0] -= slope[:, 1]
            return found

        return self.features(unit), back

    def with_seen(self, points):
        return self


def stacked():
    return FeatureRegression(
        DifficultyEnsemble(AXES), lambda n, rng: rng.random((n, AXES)), half_life=1e6
    )


def table_of(n, log_difficulty, rng):
    unit = rng.random((n, AXES))
    predicted = np.column_stack([np.zeros(n), Bowl().features(unit)])
    return EvidenceTable(
        simulation=np.arange(n),
        unit=unit,
        difficulty=np.exp(log_difficulty(predicted[:, 1:])),
        samples=np.ones(n, dtype=np.int64),
        log_ratio=np.zeros(n),
        fresh=np.ones(n, dtype=bool),
        predicted=predicted,
    )


def test_a_network_that_predicts_nan_is_named():
    class Broken(Bowl):
        def features(self, unit):
            found = super().features(unit)
            found[:3, 1] = np.nan
            return found

    rng = np.random.default_rng(1)
    acquisition = stacked()
    acquisition.observe(Broken())
    with pytest.raises(
        DataError, match=r"predicts NaN or infinite values at 3 of .* \(magnitude\)"
    ):
        acquisition.fit(table_of(0, lambda f: f[:, 0], rng), rng)


def test_novelty_alone_guides_without_difficulties():
    rng = np.random.default_rng(1)
    acquisition = stacked()
    acquisition.observe(Bowl())
    acquisition.fit(table_of(0, lambda f: f[:, 0], rng), rng)
    assert not acquisition.flat
    unit = rng.random((200, AXES))
    novelty = Bowl().features(unit)[:, 0]
    assert acquisition.diagnostics()["slope_novelty"] == 3.0
    np.testing.assert_allclose(acquisition.value(unit), 3.0 * novelty)
    interpolated, _ = acquisition.value_and_gradient(unit)
    np.testing.assert_allclose(interpolated, 3.0 * novelty, atol=0.1)
    candidates, value = acquisition.candidates
    np.testing.assert_allclose(value, 3.0 * Bowl().features(candidates)[:, 0])


@pytest.mark.parametrize("costly, most", [(False, 1024), (True, 256)])
def test_a_costly_network_is_evaluated_at_fewer_points(costly, most):
    class Counted(Bowl):
        evaluated = 0

        def features(self, points):
            Counted.evaluated += len(points)
            return super().features(points)

    Counted.costly = costly
    prior = Prior.from_mapping({f"x{k}": {"low": 0.0, "high": 1.0} for k in range(AXES)})
    sampler = create("adaptive", prior, 3, arguments={"gate": False})
    points = sampler.suggest(10).points
    sampler.observe(Counted())
    sampler.ingest([Evidence(k, point, 1.0) for k, point in enumerate(points)])
    found = sampler.suggest(10)
    assert "adaptive" in found.method
    # The candidates are not sufficient for so narrow a target: the pool grows once, by as many points. There are also
    # gradients at a sixteenth of them, and the proposals themselves.
    assert 2 * most <= Counted.evaluated <= 2.1 * most + 40


def test_difficulties_correct_the_slopes():
    rng = np.random.default_rng(2)
    acquisition = stacked()
    acquisition.observe(Bowl())
    acquisition.fit(table_of(30_000, lambda f: f[:, 0] - 2.0 * f[:, 1], rng), rng)
    slopes = acquisition.diagnostics()
    assert slopes["slope_novelty"] == pytest.approx(1.0, abs=0.3)
    assert slopes["slope_magnitude"] == pytest.approx(-2.0, abs=0.6)


def test_uninformative_features_give_a_flat_acquisition():
    rng = np.random.default_rng(3)
    acquisition = stacked()
    acquisition.observe(Bowl())
    acquisition.fit(table_of(3000, lambda f: rng.normal(size=len(f)), rng), rng)
    assert acquisition.diagnostics()["slope_novelty"] < 0.6


def test_few_difficulties_weigh_little():
    rng = np.random.default_rng(4)
    acquisition = stacked()
    acquisition.observe(Bowl())
    acquisition.fit(table_of(3, lambda f: -3.0 * f[:, 0], rng), rng)
    assert acquisition.diagnostics()["slope_novelty"] > 2.7


def test_the_gradient_matches_the_value():
    rng = np.random.default_rng(5)
    acquisition = stacked()
    acquisition.observe(Bowl())
    acquisition.fit(table_of(0, lambda f: f[:, 0], rng), rng)
    unit = rng.uniform(0.1, 0.9, (20, AXES))
    _, gradient = acquisition.value_and_gradient(unit)
    for axis in range(AXES):
        step = 1e-5 * np.eye(AXES)[axis]
        numeric = acquisition.value_and_gradient(unit + step)[0]
        numeric = (numeric - acquisition.value_and_gradient(unit - step)[0]) / 2e-5
        np.testing.assert_allclose(gradient[:, axis], numeric, rtol=1e-4, atol=1e-6)


def test_without_a_surrogate_it_is_the_blind_one():
    rng = np.random.default_rng(6)
    table = table_of(40, lambda f: f[:, 0], rng)
    blind, acquisition = DifficultyEnsemble(AXES), stacked()
    blind.fit(table, np.random.default_rng(7))
    acquisition.fit(table, np.random.default_rng(7))
    unit = rng.random((10, AXES))
    np.testing.assert_array_equal(acquisition.value(unit), blind.value(unit))


def test_interpolation_is_used_after_a_restart_until_there_is_a_probe():
    rng = np.random.default_rng(10)
    first, second = stacked(), stacked()
    first.observe(Bowl())
    first.fit(table_of(0, lambda f: f[:, 0], rng), rng)
    second.restore(first.state())
    unit = rng.random((50, AXES))
    np.testing.assert_allclose(second.value(unit), first.value(unit), atol=0.1)
    np.testing.assert_array_equal(second.candidates[0], first.candidates[0])
    second.observe(Bowl())
    np.testing.assert_array_equal(second.value(unit), first.value(unit))


@pytest.mark.parametrize("k", [1, 4, 30])
def test_the_interpolant_uses_slopes_to_find_relevant_axes(k):
    """One axis of many is relevant; without the slopes, 300 points in 30 dimensions are too few."""
    rng = np.random.default_rng(8)
    unit, new = rng.random((300, k)), rng.random((200, k))
    slopes = np.zeros_like(unit)
    slopes[:, 0] = 4.0 * np.cos(4.0 * unit[:, 0])
    known = KernelInterpolant()
    known.fit(unit, np.sin(4.0 * unit[:, 0]), slopes)
    assert rank_correlation(known.value(new), np.sin(4.0 * new[:, 0])) > 0.95
    assert known.explained > 0.9


def test_interpolant_of_a_constant_is_that_constant():
    known = KernelInterpolant()
    known.fit(np.random.default_rng(9).random((50, 2)), np.full(50, 7.0), np.zeros((50, 2)))
    assert not known.fitted
    value, gradient = known.value_and_gradient(np.full((3, 2), 0.5))
    assert value.tolist() == [7.0] * 3
    assert not gradient.any()


@pytest.mark.parametrize("method", ["pool", "diffusion_posterior", "twisted"])
def test_samplers_follow_the_difficulty_of_the_surrogate(method):
    class Physical(Bowl):
        def features(self, points):
            return super().features(points / 2.0)

        def features_and_pullback(self, points):
            found, back = super().features_and_pullback(points / 2.0)
            return found, lambda slope: back(slope) / 2.0

    names = ("a", "b", "c")
    prior = Prior.from_mapping(
        {name: {"distribution": "uniform", "low": 0.0, "high": 2.0} for name in names}
    )
    first, second = (create(method, prior, seed=3, ramp_simulations=1) for _ in range(2))
    start = first.suggest(20)
    evidence = [Evidence(i, point, 1.0) for i, point in enumerate(start.points)]
    first.ingest(evidence)
    first.observe(Physical())
    first.update()
    numbers, arrays = split_state(first.state())
    second.restore({**numbers, **arrays})
    second.observe(Physical())
    ours, theirs = first.suggest(200), second.suggest(200)
    np.testing.assert_array_equal(ours.points, theirs.points)
    np.testing.assert_array_equal(ours.log_density, theirs.log_density)
    mean = Physical().features(prior.sample(2000, np.random.default_rng(1)))[:, 0].mean()
    assert Physical().features(ours.points)[:, 0].mean() > 1.3 * mean
    again = np.concatenate([ours.points, first.suggest(200).points])
    assert len(np.unique(again, axis=0)) == 400

"""Breed: the published regimes, its kernel and its density."""

import numpy as np
import pytest

from melissa_gen.sampling import Evidence, Prior, create
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.adaptive.breed import REGIMES, Breed, BreedArguments, BreedRamp


def table(unit, difficulty):
    n = len(unit)
    return EvidenceTable(
        np.arange(100, 100 + n),
        np.asarray(unit, dtype=float),
        np.asarray(difficulty, dtype=float),
        np.ones(n, dtype=np.int64),
        np.zeros(n),
        np.ones(n, dtype=bool),
    )


def test_published_regimes():
    assert REGIMES["precise"] == (0.05, 0.5, 0.75, 5, 1.0)
    assert REGIMES["broad"] == (0.1, 0.75, 0.9, 3, 2.0)
    assert REGIMES["mixed"] == (0.1, 0.5, 0.9, 3, 1.0)
    assert REGIMES["soft"] == (0.1, 0.75, 0.5, 5, 3.0)
    regime, window = BreedArguments(regime="soft", capacity_simulations=40).resolved()
    assert regime == REGIMES["soft"] and window == 120
    regime, window = BreedArguments(regime="soft", sigma=0.2, share_end=0.6, window=7).resolved()
    assert regime == (0.2, 0.75, 0.6, 5, 3.0) and window == 7


def test_share_is_linear_and_bounded():
    ramp = BreedRamp(0.5, 0.9, 4, 0.8)
    np.testing.assert_allclose(
        [ramp.share(g) for g in range(8)], [0.0, 0.5, 0.6, 0.7, 0.8, 0.8, 0.8, 0.8]
    )
    assert BreedRamp(0.75, 0.5, 5, 0.9).share(100) == 0.5


def test_children_lie_about_hard_parents(rng):
    rule = Breed(2, sigma=0.05, window=10)
    rule.learn(table([[0.2, 0.2], [0.7, 0.7], [0.5, 0.1]], [1.0, 3.0, 0.0]), rng)
    draws = rule.propose(4000, rng)
    assert set(draws.parents.tolist()) == {100, 101}
    assert (draws.parents == 101).mean() == pytest.approx(0.75, abs=0.03)
    about = draws.unit[draws.parents == 101] - 0.7
    np.testing.assert_allclose(about.std(axis=0), 0.05, rtol=0.06)
    np.testing.assert_allclose(about.mean(axis=0), 0.0, atol=0.005)


def test_the_window_slides(rng):
    rule = Breed(1, sigma=0.01, window=2)
    rule.learn(table([[0.1], [0.5], [0.9]], [9.0, 1.0, 1.0]), rng)
    assert set(rule.propose(100, rng).parents.tolist()) == {101, 102}
    rule.learn(table([[0.1], [0.5], [0.9]], [9.0, 1.0, np.nan]), rng)  # failures are no parents
    assert set(rule.propose(100, rng).parents.tolist()) == {100, 101}


def test_children_of_a_parent_in_a_corner_are_inside_the_bounds(rng):
    rule = Breed(2, sigma=0.3, window=10)
    rule.learn(table([[0.0, 1.0]], [1.0]), rng)
    draws = rule.propose(3000, rng)
    assert draws.unit.min() >= 0.0 and draws.unit.max() <= 1.0
    copies = np.all(draws.unit == [0.0, 1.0], axis=1).mean()
    assert copies == pytest.approx(0.75**6, abs=0.03)


@pytest.mark.parametrize("parents", [[[0.5]], [[0.02], [0.6]]])
def test_density_is_the_histogram(parents, rng):
    rule = Breed(1, sigma=0.1, window=10)
    rule.learn(table(parents, np.ones(len(parents))), rng)
    draws = rule.propose(40_000, rng).unit[:, 0]
    seen = np.histogram(draws, np.linspace(0, 1, 26), density=True)[0]
    fine = ((np.arange(5000) + 0.5) / 5000)[:, None]
    said = np.exp(rule.log_density(fine)).reshape(25, 200).mean(axis=1)
    assert np.abs(seen - said).sum() / 25 < 0.04
    assert said.mean() == pytest.approx(1.0, abs=0.02)


def test_proposals_have_parents():
    prior = Prior.from_mapping({"x": {"low": 0.0, "high": 1.0}})
    sampler = create("breed", prior, 1, arguments={"regime": "precise"})
    points = sampler.suggest(10).points
    sampler.ingest([Evidence(50 + i, points[i], 1.0 + i) for i in range(10)])
    proposals = sampler.suggest(40)
    for method, parent, point in zip(
        proposals.method, proposals.parents, proposals.points, strict=True
    ):
        assert (parent == -1) == (method == "prior")
        if parent >= 0:
            assert abs(point[0] - points[parent - 50][0]) < 0.3

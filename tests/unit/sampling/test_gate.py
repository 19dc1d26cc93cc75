"""The gate: the adaptive share follows the measured skill of the acquisition, and is 0 without skill."""

import numpy as np
import pytest
from scipy import stats

from melissa_gen.sampling import Evidence, Prior, create
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.acquisition.skill import Skill, rank_correlation

SQUARE = {name: {"low": 0.0, "high": 1.0} for name in "abc"}
GATED = {"gate": True, "guide": "difficulty"}
UNGATED = {"guide": "difficulty"}


def run(sampler, difficulty, rounds=14, size=6, learn_every=1):
    """Suggests points, and reports their difficulty, in rounds; returns all points and their log densities."""
    found, waiting = [], []
    for number in range(rounds):
        proposals = sampler.suggest(size)
        found.append(proposals)
        values = difficulty(proposals.points)
        for k, point in enumerate(proposals.points):
            density = float(proposals.log_density[k])
            waiting.append(
                Evidence(number * size + k, point, float(values[k]), log_density=density)
            )
        if (number + 1) % learn_every == 0:
            sampler.ingest(waiting)
            waiting = []
    return np.concatenate([one.points for one in found]), found


def table(predicted, difficulty):
    n = len(predicted)
    zeros = np.zeros((n, 2))
    return EvidenceTable(
        *(np.arange(n), zeros, difficulty, np.ones(n, int), np.zeros(n), np.ones(n, bool)),
        predicted[:, None],
    )


def test_the_bound_covers_the_true_correlation(rng):
    # Pairs with Spearman's correlation 6 / π · asin(0.6 / 2).
    truth = 6.0 / np.pi * np.arcsin(0.3)
    below = []
    for _ in range(400):
        first = rng.standard_normal(40)
        second = 0.6 * first + 0.8 * rng.standard_normal(40)
        below.append(Skill(rank_correlation(first, second), 40).lower <= truth)
    assert 0.92 < np.mean(below) < 0.985


def test_skill_counts_simulations_with_a_prediction_and_a_difficulty(rng):
    predicted, difficulty = rng.standard_normal(150), rng.random(150)
    predicted[:10], difficulty[-5:] = np.nan, np.nan
    skill = Skill.measured(table(predicted, difficulty))
    assert skill.compared == 100
    expected = stats.spearmanr(predicted[45:145], difficulty[45:145]).statistic
    assert skill.correlation == pytest.approx(expected)


@pytest.mark.parametrize(
    "skill, gate", [(Skill(), 0), (Skill(1.0, 7), 0), (Skill(0.4, 100), 0.12), (Skill(0.9, 40), 1)]
)
def test_the_gate_opens_with_evidence(skill, gate):
    assert skill.gate == pytest.approx(gate, abs=0.06)


@pytest.mark.parametrize("method", ["adaptive", "pool", "diffusion_posterior", "twisted", "rad"])
@pytest.mark.parametrize("constraints", [(), ("a + b <= 1.2",)])
def test_without_skill_the_design_is_the_sobol_sequence_point_for_point(method, constraints):
    noise, prior = np.random.default_rng(3), Prior.from_mapping(SQUARE, constraints)
    small = {"twisted": {"steps": 8, "particles": 64}, "rad": {"size": 512}}.get(method, {})
    sampler = create(method, prior, 5, arguments={**GATED, **small})
    points, found = run(sampler, lambda points: noise.exponential(size=len(points)))
    np.testing.assert_array_equal(points, create("sobol", prior, 5).suggest(len(points)).points)
    assert all(set(one.method) == {"prior"} for one in found)
    np.testing.assert_array_equal(found[-1].log_density, prior.log_density(found[-1].points))
    numbers = sampler.diagnostics()
    assert numbers["gate"] == numbers["share"] == 0.0 and -1.0 < numbers["skill"] < 0.2


def test_a_constant_difficulty_keeps_the_sobol_sequence():
    prior = Prior.from_mapping(SQUARE)
    points, _ = run(create("pool", prior, 5, arguments=GATED), lambda points: np.ones(len(points)))
    np.testing.assert_array_equal(points, create("sobol", prior, 5).suggest(len(points)).points)


def test_with_skill_the_gate_opens_and_the_density_has_the_share_that_was_used():
    prior = Prior.from_mapping({"a": SQUARE["a"]})
    sampler = create("pool", prior, 5, arguments=GATED)
    _, found = run(sampler, lambda points: np.exp(3.0 * points[:, 0]), rounds=12)
    shares = [np.mean([name == "pool" for name in one.method]) for one in found]
    assert shares[0] == shares[1] == 0.0 and np.mean(shares[-4:]) > 0.4
    numbers = sampler.diagnostics()
    assert 0.0 < numbers["gate"] <= 1.0 and numbers["share"] <= 0.9 * numbers["gate"]
    assert numbers["skill"] < numbers["rank_correlation"]
    axis = (np.arange(2000)[:, None] + 0.5) / 2000
    density = np.exp(sampler.log_density(axis))
    assert density.mean() == pytest.approx(1.0, abs=0.03)
    assert density.min() >= 1.0 - numbers["share"] - 1e-9
    again = sampler.suggest(50)
    np.testing.assert_allclose(again.log_density, sampler.log_density(again.points))


def test_the_points_of_the_prior_are_in_the_order_of_the_sequence():
    prior = Prior.from_mapping(SQUARE)
    sampler = create("pool", prior, 5, arguments={"guide": "difficulty"})
    _, found = run(sampler, lambda points: np.exp(3.0 * points[:, 0]), rounds=6, size=20)
    plain = [
        p for one in found for p, m in zip(one.points, one.method, strict=True) if m == "prior"
    ]
    assert len(plain) < 120
    np.testing.assert_array_equal(plain, create("sobol", prior, 5).suggest(len(plain)).points)


@pytest.mark.parametrize("learn_every", [1, 2, 4])
def test_the_share_depends_on_the_number_of_simulations_not_on_that_of_generations(learn_every):
    sampler = create("pool", Prior.from_mapping(SQUARE), 5, ramp_simulations=96, arguments=UNGATED)
    run(sampler, lambda points: np.exp(3.0 * points[:, 0]), rounds=8, learn_every=learn_every)
    sampler.update()
    assert sampler.generation == 8 // learn_every
    assert sampler.share == pytest.approx(0.9 * 48 / 96)


def test_newer_evidence_on_the_same_simulations_does_not_raise_the_share():
    prior = Prior.from_mapping(SQUARE)
    sampler = create("pool", prior, 5, ramp_simulations=40, arguments=UNGATED)
    points = sampler.suggest(10).points
    for samples in range(1, 5):
        sampler.ingest([Evidence(k, p, np.exp(p[0]), samples) for k, p in enumerate(points)])
        sampler.update()
    assert sampler.generation == 4 and sampler.share == pytest.approx(0.9 * 10 / 40)

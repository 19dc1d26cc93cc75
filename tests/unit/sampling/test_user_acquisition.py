"""A function of the user changes the acquisition: regions of interest, other formulas, functionals of the output."""

import numpy as np
import pytest

from melissa_gen.errors import StudyError
from melissa_gen.sampling import Evidence, Prior, adjust_acquisition, create, split_state
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.acquisition.prediction_features import UnitCubeProbe
from melissa_gen.sampling.acquisition.user_acquisition import UserAcquisition

PRIOR = Prior.from_mapping({"a": {"low": 0.0, "high": 1.0}, "b": {"low": 10.0, "high": 20.0}})


def region(parameters, log_a, fields):
    """Points with b above 15 count ten times as much."""
    return log_a + np.where(parameters["b"] > 15.0, np.log(10.0), 0.0)


def excluded(parameters, log_a, fields):
    """No adaptive point is wanted below 15."""
    return np.where(parameters["b"] > 15.0, log_a, -np.inf)


def formula(parameters, log_a, fields):
    """A formula that does not use difficulties."""
    return -0.5 * ((parameters["b"] - 13.0) / 0.5) ** 2


def outlet(parameters, log_a, fields):
    """Where the largest predicted temperature at the outlet, the last point, is near 350."""
    hottest = fields()["temperature"][:, :, -1].max(axis=1)
    return log_a - 0.5 * ((hottest - 350.0) / 5.0) ** 2


class Channel:
    """A surrogate of a channel; the temperature at its outlet rises from 300 to 400 along a. Novelty hardly varies."""

    names = ("novelty",)
    costly = False
    field_bytes = 3 * 5 * 8

    def features(self, points):
        return 1e-3 * points[:, :1]

    def features_and_pullback(self, points):
        return self.features(points), lambda g: g * np.array([1e-3, 0.0])

    def with_seen(self, points):
        return self

    def fields(self, points):
        profile = 300.0 + 100.0 * points[:, :1, None] * np.linspace(0.0, 1.0, 5)
        return {"temperature": np.repeat(profile, 3, axis=1)}


def sampler_with(adjust, method="adaptive", **arguments):
    gate = {"gate": False} if method == "adaptive" else {}
    sampler = create(method, PRIOR, 3, arguments={"beta": 1.0, **gate, **arguments})
    assert adjust is None or adjust_acquisition(sampler, adjust)
    return sampler


def run(sampler, probe=None, rounds=6, size=20, fails=lambda points: False):
    """A closed loop in which the difficulty does not depend on b."""
    noise = np.random.default_rng(1)
    for number in range(rounds):
        found = sampler.suggest(size)
        if probe is not None:
            sampler.observe(probe)
        sampler.ingest(
            Evidence(
                number * size + k,
                point,
                float(np.exp(point[0] + 0.1 * noise.normal())),
                failed=bool(np.any(fails(point))),
                log_density=float(found.log_density[k]),
            )
            for k, point in enumerate(found.points)
        )
    return sampler.suggest(400)


@pytest.mark.parametrize("method", ["adaptive", "pool", "rad", "phased", "flow", "twisted"])
def test_a_region_of_interest_has_more_points(method):
    if method == "flow":
        pytest.importorskip("zuko", reason="the method 'flow' needs the package zuko")
    small = {"twisted": {"steps": 8, "particles": 64}, "flow": {"rounds": 1, "training_steps": 40}}
    arguments = {"guide": "difficulty", **small.get(method, {})}
    if method == "rad":
        sampler = create("rad", PRIOR, 3, arguments=arguments)
        adjust_acquisition(sampler, region)
    else:
        sampler = sampler_with(region, method, **arguments)
    found = run(sampler)
    # Of the draws of p a, 10 of 11 are in the region; half of what RAD draws is uniform.
    inside = found.points[np.array(found.method) != "prior", 1] > 15.0
    assert inside.mean() > (0.62 if method == "rad" else 0.75)


def test_a_part_can_be_excluded_from_adaptive_points_and_the_prior_still_visits_it():
    found = run(sampler_with(excluded, guide="difficulty"))
    adaptive = np.array(found.method) == "adaptive"
    assert (found.points[adaptive, 1] > 15.0).all()
    assert (found.points[~adaptive, 1] < 15.0).any()


def test_a_formula_of_the_user_replaces_the_acquisition():
    found = run(sampler_with(formula, guide="difficulty"))
    adaptive = found.points[np.array(found.method) == "adaptive", 1]
    assert adaptive.mean() == pytest.approx(13.0, abs=0.15)
    assert adaptive.std() == pytest.approx(0.5, rel=0.2)


def test_points_follow_a_functional_of_the_predicted_fields():
    found = run(sampler_with(outlet), probe=Channel())
    adaptive = found.points[np.array(found.method) == "adaptive", 0]
    # 350 is reached at a = 0.5; 5 are 0.05.
    assert adaptive.mean() == pytest.approx(0.5, abs=0.02)
    assert adaptive.std() == pytest.approx(0.05, rel=0.25)


def test_without_a_surrogate_a_functional_changes_nothing(acquisitions, rng):
    inner = acquisitions["linear"](1.0)
    changed = UserAcquisition(inner, outlet, PRIOR, lambda n, r: r.random((n, 2)))
    changed.fit(EvidenceTable(*columns(rng), np.ones(9, bool)), rng)
    unit = rng.random((50, 2))
    np.testing.assert_allclose(changed.value(unit), inner.value(unit))
    changed.observe(UnitCubeProbe(Channel(), PRIOR))
    changed.fit(EvidenceTable(*columns(rng), np.ones(9, bool)), rng)
    assert np.abs(changed.value(unit) - inner.value(unit)).max() > 1.0


@pytest.mark.parametrize(("megabytes", "most"), [(0.001, 32), (10, 3), (100, 1)])
def test_whole_fields_of_a_few_points_are_in_memory_at_once(acquisitions, rng, megabytes, most):
    counts = []

    def counted(parameters, log_a, fields):
        counts.append(len(fields()["temperature"]))
        return log_a

    channel = Channel()
    channel.field_bytes = int(megabytes * 1e6)
    changed = UserAcquisition(acquisitions["linear"](1.0), counted, PRIOR, lambda n, r: 1 / 0)
    changed.observe(UnitCubeProbe(channel, PRIOR))
    changed.value(rng.random((64, 2)))
    assert max(counts) == most and sum(counts) == 64


def test_the_density_is_that_of_the_changed_acquisition():
    sampler = sampler_with(region, guide="difficulty")
    run(sampler)
    unit = np.random.default_rng(2).random((20_000, 2))
    density = np.exp(sampler.log_density(PRIOR.from_unit(unit))) * 10.0
    assert density.mean() == pytest.approx(1.0, abs=0.05)
    low, high = (density[(unit[:, 1] > 0.5) == side].mean() - 0.1 for side in (False, True))
    assert high / low == pytest.approx(10.0, rel=0.15)


def test_failures_are_avoided_in_the_region_of_interest():
    def fails(point):
        return point[1] > 18.0

    free = run(sampler_with(region, guide="difficulty"))
    found = run(sampler_with(region, guide="difficulty"), fails=fails, rounds=10)
    shares = [(one.points[:, 1] > 18.0).mean() for one in (free, found)]
    assert shares[1] < 0.75 * shares[0]


def test_gradients_include_the_change(acquisitions, rng):
    def slope(parameters, log_a, fields):
        return log_a + 3.0 * np.sin(parameters["a"])

    changed = UserAcquisition(
        acquisitions["linear"](1.0), slope, PRIOR, lambda n, r: r.random((n, 2))
    )
    changed.fit(EvidenceTable(*columns(rng), np.ones(9, bool)), rng)
    unit = 0.1 + 0.8 * rng.random((20, 2))
    value, gradient = changed.value_and_gradient(unit)
    np.testing.assert_allclose(value, changed.value(unit), atol=0.03)
    np.testing.assert_allclose(gradient[:, 0], 1.0 + 3.0 * np.cos(unit[:, 0]), atol=0.3)
    np.testing.assert_allclose(gradient[:, 1], 1.0, atol=0.3)
    # The skill, from which the gate follows, is that of the prediction of the difficulty.
    np.testing.assert_allclose(changed.difficulty(unit), unit.sum(axis=1))


def columns(rng):
    return np.arange(9), rng.random((9, 2)), np.ones(9), np.ones(9, int), np.zeros(9)


@pytest.mark.parametrize("adjust", [region, outlet])
def test_a_restored_sampler_continues_exactly(adjust):
    probe = Channel()
    sampler, other = sampler_with(adjust), sampler_with(adjust)
    run(sampler, probe)
    numbers, arrays = split_state(sampler.state())
    other.restore({**numbers, **arrays})
    other.observe(probe)
    np.testing.assert_array_equal(sampler.suggest(20).points, other.suggest(20).points)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda p, log_a, f: np.full(len(log_a), np.nan), "returns NaN or infinity for"),
        (lambda p, log_a, f: np.full(len(log_a), -np.inf), "returns -infinity at all of"),
        (lambda p, log_a, f: 1.0, r"returns the shape \(\) for"),
        (lambda p, log_a, f: log_a + p["c"], "raises KeyError: 'c'"),
    ],
)
def test_what_is_wrong_in_the_function_is_said(wrong, said):
    with pytest.raises(StudyError, match=rf"sampler\.acquisition {said}"):
        run(sampler_with(wrong, guide="difficulty"))


def test_a_method_without_an_acquisition_is_not_changed():
    for method in ("sobol", "breed"):
        assert not adjust_acquisition(create(method, PRIOR, 3), region)

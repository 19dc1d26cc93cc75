"""A sampler with features of the surrogate: its probe, its memory and its state."""

import numpy as np
import pytest

from melissa_gen.sampling import Evidence, Prior, create
from melissa_gen.sampling.acquisition.base_acquisition import Acquisition
from melissa_gen.sampling.acquisition.prediction_features import UnitCubeProbe
from melissa_gen.sampling.adaptive.acquisition_rule import AcquisitionRule
from melissa_gen.sampling.adaptive.mixture import MixtureSampler
from melissa_gen.sampling.adaptive.pool import Pool
from melissa_gen.sampling.adaptive_share import Ramp

PRIOR = Prior.from_mapping(
    {
        "a": {"distribution": "log_uniform", "low": 0.1, "high": 10.0},
        "pinned": {"distribution": "fixed", "value": 3.0},
        "b": {"distribution": "normal", "mean": 1.0, "std": 2.0},
        "n": {"distribution": "integer", "low": 1, "high": 4},
        "t": {"distribution": "normal", "mean": 0.0, "std": 1.0, "low": -1.0, "high": 2.0},
        "c": {"distribution": "categorical", "values": [1.0, 5.0]},
    }
)


class Squares:
    """Two features in physical units with known slopes."""

    names = ("squares", "product")
    costly = False
    seen = None

    def with_seen(self, points):
        self.seen = points
        return self

    def features(self, points):
        return np.stack([(points**2).sum(axis=1), points[:, 0] * points[:, 2]], axis=1)

    def features_and_pullback(self, points):
        def back(slope):
            of_product = np.zeros_like(points)
            of_product[:, 0], of_product[:, 2] = points[:, 2], points[:, 0]
            return slope[:, :1] * 2.0 * points + slope[:, 1:] * of_product

        return self.features(points), back


class Steep(Acquisition):
    """An acquisition that is a feature of the probe, once it has been given one."""

    uses_surrogate = True
    probe = None

    @property
    def flat(self):
        return self.probe is None

    def observe(self, probe):
        self.probe = probe

    def fit(self, table, rng):
        self.table = table

    def value_and_gradient(self, unit):
        features, back = self.probe.features_and_pullback(unit)
        return 0.01 * features[:, 0], back(np.tile([0.01, 0.0], (len(unit), 1)))


def sampler_of(acquisition, history=50):
    rule = AcquisitionRule("pool", PRIOR.sample_unit, acquisition, Pool(PRIOR.sample_unit), 1.0)
    return MixtureSampler(PRIOR, 3, rule, Ramp(0.9, 1), history)


def heard(proposals, first=0):
    difficulty = 1.0 + proposals.points[:, 0]
    return [
        Evidence(first + i, point, float(difficulty[i]), log_density=proposals.log_density[i])
        for i, point in enumerate(proposals.points)
    ]


def test_slopes_in_the_cube_match_the_map():
    unit = np.random.default_rng(5).uniform(0.1, 0.9, (20, PRIOR.unit_dimension))
    probe = UnitCubeProbe(Squares(), PRIOR)
    found, back = probe.features_and_pullback(unit)
    np.testing.assert_array_equal(found, probe.features(unit))
    slope = back(np.tile([1.0, 0.5], (20, 1)))
    for axis in (0, 1, 3):
        step = 1e-6 * np.eye(PRIOR.unit_dimension)[axis]
        numeric = (probe.features(unit + step) - probe.features(unit - step)) / 2e-6
        np.testing.assert_allclose(slope[:, axis], numeric @ [1.0, 0.5], rtol=1e-4, atol=1e-6)
    number = PRIOR.from_unit(unit)[:, 3]
    np.testing.assert_allclose(slope[:, 2], 2.0 * number * 4)  # as if numbers lay on a line
    assert not slope[:, 4].any()


def test_predictions_are_reported_beside_outcomes():
    acquisition = Steep()
    sampler = sampler_of(acquisition)
    assert sampler.uses_surrogate
    blind = sampler.suggest(4)
    sampler.observe(Squares())
    seen = sampler.suggest(8)
    sampler.ingest(heard(blind) + heard(seen, first=4))
    sampler.update()
    table = acquisition.table
    assert table.predicted.shape == (12, 3)
    assert np.isnan(table.predicted[:4]).all()
    np.testing.assert_allclose(table.predicted[4:, 1:], Squares().features(seen.points))
    np.testing.assert_allclose(table.predicted[4:, 0], 0.01 * table.predicted[4:, 1])
    # Eight predictions have been met by what came of them: enough to compare their ranks.
    assert -1.0 <= sampler.diagnostics()["rank_correlation"] <= 1.0


def test_the_probe_gets_all_points_drawn_so_far_but_those_that_failed():
    sampler, probe = sampler_of(Steep()), Squares()
    drawn = sampler.suggest(5)
    sampler.ingest(heard(drawn)[:2])
    sampler.update()
    elsewhere = Evidence(9, PRIOR.sample(1, np.random.default_rng(8))[0], 1.0)
    sampler.ingest([elsewhere, Evidence(10, drawn.points[4], 0.0, failed=True)])
    sampler.observe(probe)
    expected = np.concatenate([drawn.points[:4], elsewhere.parameters[None]])
    np.testing.assert_allclose(probe.seen, expected, rtol=1e-6, atol=1e-6)


def test_the_probe_gets_the_points_that_the_history_has_forgotten():
    sampler, probe = sampler_of(Steep(), history=10), Squares()
    sampler.observe(probe)
    drawn = []
    for first in range(0, 60, 6):
        drawn.append(sampler.suggest(6))
        sampler.ingest(heard(drawn[-1], first=first))
        sampler.update()
    assert sampler.diagnostics()["records"] == 10
    again = sampler_of(Steep(), history=10)
    again.restore(sampler.state())
    expected = np.concatenate([one.points for one in drawn])
    for one in (sampler, again):
        one.observe(probe)
        np.testing.assert_allclose(probe.seen, expected, rtol=1e-6, atol=1e-6)


def test_predictions_are_restored():
    first, second = (sampler_of(Steep()) for _ in range(2))
    first.observe(Squares())
    waiting = first.suggest(6)
    second.observe(Squares())
    second.restore(first.state())
    for sampler in (first, second):
        sampler.ingest(heard(waiting))
    ours, theirs = first.suggest(10), second.suggest(10)
    np.testing.assert_array_equal(ours.points, theirs.points)
    np.testing.assert_array_equal(first.state()["records.known"], second.state()["records.known"])
    assert np.isfinite(first.state()["records.known"]).all()


@pytest.mark.parametrize("method", ["uniform", "sobol", "breed"])
def test_other_methods_get_no_probe(method):
    sampler = create(method, PRIOR, seed=1)
    assert not sampler.uses_surrogate


@pytest.mark.parametrize("method", ["pool", "twisted", "diffusion_posterior", "flow", "rad"])
def test_methods_guided_by_difficulties_need_no_probe(method):
    def looks(**arguments):
        sampler = create(method, PRIOR, seed=1, arguments=arguments)
        return sampler.uses_surrogate

    assert looks()
    assert not looks(guide="difficulty")

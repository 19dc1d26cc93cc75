"""The method `adaptive`: the choice of the proposer, its exactness, and corrections by the true acquisition."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from melissa_gen.sampling import Evidence, Prior, create
from melissa_gen.sampling.acquisition.base_acquisition import Acquisition
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.adaptive.acquisition_rule import AcquisitionRule
from melissa_gen.sampling.adaptive.energy import Energy
from melissa_gen.sampling.adaptive.measured import CorrectedFlow, Measured
from melissa_gen.sampling.adaptive.twisted import Twisted
from melissa_gen.sampling.designs.quasi_random import even_draws

NOTHING = EvidenceTable(*(np.empty(0) for _ in range(5)), np.empty(0, bool))


def cube(d):
    return even_draws(Prior.from_mapping({f"x{k}": {"low": 0.0, "high": 1.0} for k in range(d)}))


@dataclass(frozen=True)
class Interpolated(Acquisition):
    """A bump whose gradients are those of another bump, as if they were interpolated badly."""

    true: Acquisition
    seen: Acquisition

    def value(self, unit):
        return self.true.value(unit)

    def value_and_gradient(self, unit):
        return self.seen.value_and_gradient(unit)


@dataclass(frozen=True)
class Category(Acquisition):
    """One of four categories is 20 times as difficult as the others; there is no gradient."""

    def value_and_gradient(self, unit):
        return np.where((4.0 * unit[:, 0]).astype(int) == 2, np.log(20.0), 0.0), 0.0 * unit


def chosen(d, acquisition, rng, **more):
    proposer = Measured(cube(d), d, **more)
    rule = AcquisitionRule("adaptive", cube(d), acquisition, proposer, 1.0, calibrate=False)
    rule.learn(NOTHING, rng)
    unit = np.concatenate([rule.propose(50, rng).unit for _ in range(12)])
    return unit, rule


def test_the_pool_is_chosen_where_it_reaches_the_target(acquisitions, rng):
    for d, kind in ((3, acquisitions["bump"](0.6, 0.1)), (30, acquisitions["linear"](0.5))):
        _, rule = chosen(d, kind, rng)
        numbers = rule.diagnostics()
        assert numbers["gradients"] == 0.0 and numbers["tilt"] == 1.0
        assert numbers["concentration"] == pytest.approx(1.0, abs=0.15)


def test_the_flow_is_chosen_for_a_narrow_target_in_many_dimensions(acquisitions, rng):
    kind, d = acquisitions["bump"](0.6, 0.2), 16
    unit, rule = chosen(d, kind, rng)
    numbers = rule.diagnostics()
    assert numbers["gradients"] == 1.0 and numbers["concentration"] > 0.9
    exact = stats.truncnorm(-3.0, 2.0, 0.6, 0.2)
    ratio = unit.std(axis=0).mean() / exact.std()
    print(f"sd ratio {ratio:.3f}, mean off by {(unit.mean() - exact.mean()) / exact.std():+.3f} sd")
    assert 0.9 < ratio < 1.1 and abs(unit.mean() - exact.mean()) < 0.1 * exact.std()
    _, discrete = chosen(d, kind, rng, always_pool=True)
    assert discrete.diagnostics()["gradients"] == 0.0


def test_the_pool_is_chosen_where_gradients_are_misleading(acquisitions, rng):
    kind = Interpolated(acquisitions["bump"](0.5, 0.2), acquisitions["linear"](-200.0))
    assert chosen(16, kind, rng)[1].diagnostics()["gradients"] == 0.0


def test_a_prior_with_a_category_uses_the_pool_and_shares_are_right():
    prior = Prior.from_mapping(
        {
            **{f"x{k}": {"low": 0.0, "high": 1.0} for k in range(12)},
            "c": {"distribution": "categorical", "values": [1.0, 2.0, 3.0]},
        }
    )
    sampler = create("adaptive", prior, 1, arguments={"gate": False, "guide": "difficulty"})
    for number in range(8):
        found = sampler.suggest(20)
        hard = np.where(found.points[:, -1] == 2.0, 20.0, 1.0)
        sampler.ingest(
            [
                Evidence(20 * number + k, point, float(hard[k]), log_density=found.log_density[k])
                for k, point in enumerate(found.points)
            ]
        )
    assert np.mean(sampler.suggest(200).points[:, -1] == 2.0) > 0.75
    assert sampler.diagnostics()["gradients"] == 0.0


@pytest.mark.parametrize(
    "draw",
    [
        lambda kind, rng: Twisted(3, particles_per_point=8).draw(1000, kind, 1.0, rng),
        lambda kind, rng: Energy(3).draw(1000, kind, 1.0, rng),
    ],
    ids=["twisted", "energy"],
)
def test_corrections_use_the_true_acquisition(draw, acquisitions, rng):
    unit = draw(Category(), rng)
    assert np.mean((4.0 * unit[:, 0]).astype(int) == 2) == pytest.approx(20.0 / 23.0, abs=0.05)
    kind = Interpolated(acquisitions["bump"](0.6, 0.2), acquisitions["bump"](0.5, 0.25))
    exact, unit = stats.truncnorm(-3.0, 2.0, 0.6, 0.2), draw(kind, rng)
    worst = max(stats.kstest(unit[:, axis], exact.cdf).statistic for axis in range(3))
    print(f"KS {worst:.3f}")
    assert worst < 0.08


def test_the_correction_of_the_flow_moves_points_to_the_true_target(acquisitions, rng):
    kind = Interpolated(acquisitions["bump"](0.6, 0.2), acquisitions["bump"](0.5, 0.25))
    unit = CorrectedFlow(3).draw(1500, kind, 1.0, rng)
    exact = stats.truncnorm(-3.0, 2.0, 0.6, 0.2)
    assert max(stats.kstest(unit[:, axis], exact.cdf).statistic for axis in range(3)) < 0.06


@pytest.mark.parametrize("n", [40, 64])
def test_the_correction_of_the_flow_takes_any_number_of_points(n, acquisitions, rng):
    unit = CorrectedFlow(2).next(n, acquisitions["bump"](0.6, 0.2), 1.0, rng)
    assert unit.shape == (n, 2) and unit.min() >= 0.0 and unit.max() <= 1.0

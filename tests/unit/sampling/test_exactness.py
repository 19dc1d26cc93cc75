"""The proposers against targets whose distribution is known, with stated tolerances.

A mean of n draws is off by sd / √n; with n = 1,500 and d axes pooled that is 0.026 sd or less.
"""

import numpy as np
import pytest
from scipy import stats

from melissa_gen.sampling import check_arguments
from melissa_gen.sampling.acquisition.base_acquisition import (
    Tilt,
    effective_size,
    matching_exponent,
    supported_exponent,
)
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.adaptive.acquisition_rule import AcquisitionRule
from melissa_gen.sampling.adaptive.diffusion_posterior import DiffusionPosterior
from melissa_gen.sampling.adaptive.energy import Energy
from melissa_gen.sampling.adaptive.pool import Pool
from melissa_gen.sampling.adaptive.rad import ResidualDistribution
from melissa_gen.sampling.adaptive.twisted import Twisted, systematic


def cube(d):
    return lambda n, rng: rng.random((n, d))


MAKE = {
    "pool": lambda d: Pool(cube(d), size=30_000),
    "twisted": lambda d: Twisted(d, particles_per_point=3),
    "energy": Energy,
    "diffusion_posterior": DiffusionPosterior,
}
EXACT = ["pool", "twisted", "energy"]
N = 1500
NOTHING = EvidenceTable(*(np.empty(0) for _ in range(5)), np.empty(0, bool))


def truncated(center, width):
    return stats.truncnorm((0.0 - center) / width, (1.0 - center) / width, center, width)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("beta", [0.0, 1.5])
def test_without_guidance_it_is_the_prior(name, beta, acquisitions, rng):
    kind = acquisitions["bump"](0.9, 0.05) if beta == 0.0 else acquisitions["flat"]()
    unit = MAKE[name](3).draw(N, kind, beta, rng)
    assert unit.shape == (N, 3) and unit.min() >= 0.0 and unit.max() <= 1.0
    for axis in range(3):
        assert stats.kstest(unit[:, axis], "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(unit.T) - np.eye(3)).max() < 0.1


@pytest.mark.parametrize("steps, error", [(10, 0.015), (20, 0.005), (80, 0.001)])
def test_the_unguided_flow_errs_by_the_square_of_its_steps(steps, error, acquisitions, rng):
    unit = DiffusionPosterior(1, steps).draw(8192, acquisitions["flat"](), 1.0, rng)
    assert stats.kstest(unit[:, 0], "uniform").statistic < error


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("d, width", [(1, 0.2), (2, 0.2), (5, 0.25)])
def test_bump_exact_methods(name, d, width, acquisitions, rng):
    distribution = truncated(0.6, width)
    unit = MAKE[name](d).draw(N, acquisitions["bump"](0.6, width), 1.0, rng)
    off = (unit.mean() - distribution.mean()) / distribution.std()
    ratio = unit.std(axis=0).mean() / distribution.std()
    print(f"{name} d={d}: mean off by {off:+.3f} sd, sd ratio {ratio:.3f}")
    assert abs(off) < 0.08 and 0.95 < ratio < 1.05
    assert max(stats.kstest(unit[:, axis], distribution.cdf).statistic for axis in range(d)) < 0.06


@pytest.mark.parametrize(
    "guidance, low, high, most", [("plain", 0.03, 0.85, 0.3), ("implicit", 0.8, 0.99, 0.1)]
)
@pytest.mark.parametrize("d, width", [(1, 0.2), (2, 0.2), (5, 0.25), (5, 0.1)])
def test_bump_guidance_is_too_narrow_by_a_known_amount(
    guidance, low, high, most, d, width, acquisitions, rng
):
    distribution = truncated(0.6, width)
    proposer = DiffusionPosterior(d, guidance=guidance)
    unit = proposer.draw(N, acquisitions["bump"](0.6, width), 1.0, rng)
    off = (unit.mean() - distribution.mean()) / distribution.std()
    ratio = unit.std(axis=0).mean() / distribution.std()
    print(f"{guidance} d={d}: mean off by {off:+.3f} sd, sd ratio {ratio:.3f}")
    assert abs(off) < most and low < ratio < high


@pytest.mark.parametrize("steps", [4, 50])
def test_ancestral_steps_without_guidance_are_the_prior_for_any_number_of_steps(
    steps, acquisitions, rng
):
    proposer = DiffusionPosterior(2, steps, guidance="dps")
    unit = proposer.next(8192, acquisitions["flat"](), 1.0, rng)
    assert max(stats.kstest(unit[:, axis], "uniform").statistic for axis in range(2)) < 0.025


@pytest.mark.parametrize("d, width", [(1, 0.2), (2, 0.2), (5, 0.25)])
def test_ancestral_guidance_is_too_narrow_by_less_than_that_of_the_plain_flow(
    d, width, acquisitions, rng
):
    distribution, kind = truncated(0.6, width), acquisitions["bump"](0.6, width)
    ratios = {
        guidance: DiffusionPosterior(d, steps, guidance).draw(N, kind, 1.0, rng).std(axis=0).mean()
        / distribution.std()
        for guidance, steps in (("dps", 50), ("plain", 10))
    }
    print(ratios)
    assert ratios["plain"] < ratios["dps"] < 1.0


@pytest.mark.parametrize("name", MAKE)
def test_beta_is_an_exponent(name, acquisitions, rng):
    # (bump of width w)^4 is a bump of width w / 2
    first = MAKE[name](2).draw(N, acquisitions["bump"](0.5, 0.2), 4.0, rng)
    second = MAKE[name](2).draw(N, acquisitions["bump"](0.5, 0.1), 1.0, rng)
    assert first.std() == pytest.approx(second.std(), rel=0.08)


@pytest.mark.parametrize("name", MAKE)
def test_the_weights_of_two_separated_modes_are_preserved(name, acquisitions, rng):
    unit = MAKE[name](2).draw(N, acquisitions["two"](), 1.0, rng)
    low = np.linalg.norm(unit - 0.2, axis=1) < 0.3
    high = np.linalg.norm(unit - 0.8, axis=1) < 0.3
    print(f"{name}: {low.mean():.3f} and {high.mean():.3f}")
    assert (low | high).mean() > 0.97
    assert 0.38 < low.mean() < 0.62


@pytest.mark.parametrize("name", MAKE)
def test_corner_target(name, acquisitions, rng):
    distribution = truncated(1.0, 0.15)
    unit = MAKE[name](3).draw(N, acquisitions["bump"](1.0, 0.15), 1.0, rng)
    off = (unit.mean() - distribution.mean()) / distribution.std()
    print(f"{name}: corner mean off by {off:+.3f} sd")
    assert abs(off) < (0.4 if name == "diffusion_posterior" else 0.1)
    # No heap of points on the faces, unlike clipping.
    assert (unit > 1.0 - 1e-6).mean() < 1e-3 and unit.max() <= 1.0


@pytest.mark.parametrize("name", EXACT)
def test_linear_target(name, acquisitions, rng):
    # The distribution of 1 - u.
    distribution = stats.truncexpon(b=4.0, scale=0.25)
    unit = MAKE[name](2).draw(N, acquisitions["linear"](4.0), 1.0, rng)
    assert stats.kstest(1.0 - unit[:, 0], distribution.cdf).statistic < 0.06


@pytest.mark.parametrize("name", MAKE)
def test_draws_of_a_steep_acquisition_are_inside_the_box(name, acquisitions, rng):
    unit = MAKE[name](4).draw(50, acquisitions["linear"](1e6), 3.0, rng)
    assert np.isfinite(unit).all() and unit.min() >= 0.0 and unit.max() <= 1.0
    if name == "diffusion_posterior":  # a pool can only find the best of its points
        assert unit.min() > 0.99


@pytest.mark.parametrize("name", MAKE)
def test_few_repeated_points(name, acquisitions, rng):
    unit = MAKE[name](5).draw(100, acquisitions["bump"](0.6, 0.15), 1.0, rng)
    assert len(np.unique(unit, axis=0)) > 90


def test_small_runs_of_twisted_are_not_collapsed(acquisitions):
    distribution, kind = truncated(0.6, 0.25), acquisitions["bump"](0.6, 0.25)
    ratios = [
        Twisted(5).draw(100, kind, 1.0, np.random.default_rng(seed)).std(axis=0).mean()
        for seed in range(8)
    ]
    assert np.mean(ratios) / distribution.std() == pytest.approx(1.0, abs=0.06)


def test_tilt_is_normalised_and_finds_its_exponent(acquisitions, rng):
    kind = acquisitions["bump"](0.6, 0.25)
    pool = kind.value(rng.random((4096, 3)))
    for exponent in (0.5, 1.0, 2.0):
        draws = Pool(cube(3)).draw(2000, kind, exponent, rng)
        found = matching_exponent(pool, float(kind.value(draws).mean()), 10.0)
        assert found == pytest.approx(exponent, rel=0.12)
    density = np.exp(Tilt.normalized(1.0, pool).log_density(kind.value(rng.random((4096, 3)))))
    assert density.mean() == pytest.approx(1.0, abs=0.06)


def test_effective_size_and_systematic_resampling(rng):
    assert effective_size(np.zeros(10)) == pytest.approx(10.0)
    assert effective_size(np.array([0.0, -np.inf, -np.inf])) == pytest.approx(1.0)
    counts = np.bincount(systematic(np.log([0.5, 0.25, 0.25]), 8, rng), minlength=3)
    assert counts.tolist() == [4, 2, 2]


@pytest.mark.parametrize("method, k, c", [("rad", 1.0, 1.0), ("rar_d", 2.0, 0.0)])
def test_residual_distribution_has_the_papers_exponent_and_constant(
    method, k, c, acquisitions, rng
):
    default = check_arguments(method)
    assert (default.k, default.c) == (k, c)
    kind = acquisitions["linear"](2.0)  # ε = exp(2 u), E[ε^k] = (exp(2 k) - 1) / 2 k
    proposer = ResidualDistribution(cube(1), default.c, size=20_000)
    proposer.fit(NOTHING, kind, default.k, rng)
    axis = (np.arange(1000) + 0.5) / 1000
    power = np.exp(2.0 * k * axis) / ((np.exp(2.0 * k) - 1.0) / (2.0 * k))
    exact = (power + c) / (1.0 + c)
    said = np.exp(proposer.log_density(axis[:, None], kind))
    np.testing.assert_allclose(said, exact, rtol=0.06)
    drawn = proposer.draw(2000, kind, default.k, rng)[:, 0]
    distribution = np.cumsum(exact) / exact.sum()
    ks = stats.kstest(drawn, lambda u: np.interp(u, axis, distribution)).statistic
    print(f"{method}: KS {ks:.3f}")
    assert ks < 0.05


@pytest.mark.parametrize("guidance, weakest", [("plain", 0.1), ("implicit", 0.7)])
@pytest.mark.parametrize("d, center, width", [(1, 0.6, 0.2), (5, 0.6, 0.25), (3, 1.0, 0.15)])
def test_calibrated_guidance_has_the_targets_spread(
    guidance, weakest, d, center, width, acquisitions, rng
):
    distribution = truncated(center, width)
    kind = acquisitions["bump"](center, width)
    worst = {}
    for calibrate in (False, True):
        proposer = DiffusionPosterior(d, guidance=guidance)
        rule = AcquisitionRule("x", cube(d), kind, proposer, 1.0, calibrate)
        generations = []
        for _ in range(8):  # each finds the strength anew, from a small sample
            rule.learn(NOTHING, rng)
            generations.append(rule.propose(N // 4, rng).unit)
        unit = np.concatenate(generations[4:])
        ratio = unit.std(axis=0).mean() / distribution.std()
        ks = [stats.kstest(unit[:, axis], distribution.cdf).statistic for axis in range(d)]
        worst[calibrate] = max(ks)
        print(f"d={d} at {center}, calibrated {calibrate}: sd ratio {ratio:.3f}, KS {max(ks):.3f}")
        if calibrate:
            assert 0.8 < ratio < 1.15
            assert rule.diagnostics()["tilt"] == pytest.approx(1.0, abs=0.25)
            assert weakest < rule.diagnostics()["strength"] < 1.0
    assert worst[True] < (0.08 if guidance == "implicit" else worst[False])


@pytest.mark.parametrize("d, width", [(2, 0.1), (4, 0.02), (8, 0.05)])
def test_the_density_is_that_of_the_draws_also_for_a_target_between_the_points(
    d, width, acquisitions, rng
):
    kind = acquisitions["bump"](0.4, width)
    rule = AcquisitionRule("pool", cube(d), kind, Pool(cube(d)), 1.0)
    rule.learn(NOTHING, rng)
    adaptive = np.concatenate([rule.propose(8, rng).unit for _ in range(100)])
    both = np.concatenate([adaptive, rng.random((89, d))])
    weights = 1.0 / (0.1 + 0.9 * np.exp(rule.log_density(both)))
    # The mean of p/q over draws of q is 1. A density that is too narrow for the draws gives 5 and more.
    assert weights.mean() == pytest.approx(1.0, abs=0.3)


def test_an_exponent_is_lowered_only_as_far_as_the_pool_needs(rng):
    values = rng.standard_normal(1000)
    assert supported_exponent(values, 1.0, 16.0) == 1.0
    lowered = supported_exponent(values, 8.0, 16.0)
    assert 1.0 < lowered < 8.0 and effective_size(lowered * values) == pytest.approx(16.0, rel=0.01)

"""The closed forms against quadrature and against draws."""

import numpy as np
import pytest
from scipy import stats

from melissa_gen.sampling.networks.box_diffusion import (
    BoxDiffusion,
    DenoisedDistribution,
    log_phi_difference,
)

LAWS = [(0.0, 0.05), (0.3, 0.4), (-1.4, 0.2), (6.0, 0.3), (2.0, 30.0), (1.0, 1.0)]


def test_log_phi_difference_does_not_underflow():
    for a, b in [(-1.0, 2.0), (-40.0, -39.0), (39.0, 40.0), (1e3, 1e3 + 1), (0.0, 1e-3)]:
        found = log_phi_difference(np.array([a]), np.array([b]))[0]
        assert np.isfinite(found)
        mirrored = log_phi_difference(np.array([-b]), np.array([-a]))[0]
        assert found == pytest.approx(mirrored, rel=1e-12)
    exact = np.log(stats.norm.cdf(2.0) - stats.norm.cdf(-1.0))
    assert log_phi_difference(np.array([-1.0]), np.array([2.0]))[0] == pytest.approx(exact)


@pytest.mark.parametrize("m, s", LAWS)
def test_moments_against_quadrature(m, s):
    x = (np.arange(400_000) + 0.5) / 200_000 - 1.0
    log_p = -0.5 * ((x - m) / s) ** 2
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    mean, variance = DenoisedDistribution(np.array([[m]]), s).mean_and_variance()
    assert mean[0, 0] == pytest.approx(p @ x, abs=1e-6)
    assert DenoisedDistribution(np.array([[m]]), s).mean[0, 0] == mean[0, 0]
    assert variance[0, 0] == pytest.approx(p @ x**2 - (p @ x) ** 2, rel=1e-4)
    for slope in (-20.0, 0.0, 3.0):
        found = DenoisedDistribution(np.array([[m]]), s).log_mgf(np.array([[slope]]))[0]
        assert found == pytest.approx(np.log(p @ np.exp(slope * x)), abs=1e-5)


@pytest.mark.parametrize("m, s", LAWS)
@pytest.mark.parametrize("slope", [0.0, 4.0])
def test_draws_follow_the_tilted_law(m, s, slope, rng):
    many = DenoisedDistribution(np.full((4000, 1), m), s).draw(np.full((4000, 1), slope), rng)[:, 0]
    center = m + s * s * slope
    distribution = stats.truncnorm((-1.0 - center) / s, (1.0 - center) / s, center, s)
    assert np.abs(many).max() <= 1.0
    assert many.mean() == pytest.approx(
        distribution.mean(), abs=5.0 * distribution.std() / np.sqrt(4000) + 1e-6
    )
    assert stats.kstest(many, distribution.cdf).statistic < 0.04


def test_densities_far_outside_the_box_are_finite(rng):
    distribution = DenoisedDistribution(np.array([[-500.0, 500.0, 0.0]]), 0.03)
    mean, variance = distribution.mean_and_variance()
    np.testing.assert_allclose(mean, [[-1.0, 1.0, 0.0]], atol=1e-3)
    assert np.isfinite(variance).all() and variance.min() >= 0.0
    assert np.abs(distribution.draw(np.full((1, 3), 1e8), rng)).max() <= 1.0


def test_steps_compose_to_the_noising_law(rng):
    """From the top to a level in exact steps, x has the distribution of α x0 + σ ε there."""
    diffusion = BoxDiffusion(1, 12)
    x = diffusion.start(20_000, rng)
    for level in range(12, 4, -1):
        distribution = diffusion.denoised(x, level)
        x = diffusion.step(x, distribution.draw(np.zeros_like(x), rng), level, rng)
    alpha = diffusion.alpha(4)
    straight = alpha * rng.uniform(-1, 1, 20_000) + np.sqrt(1 - alpha**2) * rng.normal(size=20_000)
    assert stats.ks_2samp(x[:, 0], straight).pvalue > 1e-3

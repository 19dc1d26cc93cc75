"""The statistics are those of the package iterative-stats, where it has them."""

import numpy as np
import pytest

from melissa_gen.statistics.moments import Moments
from melissa_gen.statistics.quantiles import Quantiles
from melissa_gen.statistics.sobol_indices import SobolIndices

REASON = "the package iterative-stats, which the estimates are compared with, is not installed"

iterative_covariance = pytest.importorskip("iterative_stats.iterative_covariance", reason=REASON)
iterative_moments = pytest.importorskip("iterative_stats.iterative_moments", reason=REASON)
iterative_quantile = pytest.importorskip("iterative_stats.iterative_quantile", reason=REASON)
sensitivity = pytest.importorskip("iterative_stats.sensitivity.sensitivity_martinez", reason=REASON)

POINTS, SAMPLES = 7, 200


def test_moments():
    samples = np.random.default_rng(1).gamma(2.0, size=(SAMPLES, POINTS))
    mine, theirs = Moments(1, POINTS), iterative_moments.IterativeMoments(4, dim=POINTS)
    for sample in samples:
        mine.update(0, sample[None], np.ones(1))
        theirs.increment(sample)
    found = mine.results()
    np.testing.assert_allclose(found["mean"][0], theirs.get_mean(), rtol=1e-12)
    biased = found["variance"][0] * (SAMPLES - 1) / SAMPLES
    np.testing.assert_allclose(biased, theirs.get_variance(), rtol=1e-12)
    np.testing.assert_allclose(found["skewness"][0], theirs.get_skewness(), rtol=1e-10)
    np.testing.assert_allclose(found["kurtosis"][0], theirs.get_kurtosis(), rtol=1e-10)


def test_covariance_with_a_parameter():
    generator = np.random.default_rng(2)
    parameters = generator.normal(size=(SAMPLES, 1))
    samples = parameters + generator.normal(size=(SAMPLES, POINTS))
    mine = Moments(1, POINTS, order=2, parameters=1)
    theirs = iterative_covariance.IterativeCovariance(POINTS)
    for row, sample in zip(parameters, samples, strict=True):
        mine.update(0, sample[None], np.ones(1), row[None])
        theirs.increment(sample, np.full(POINTS, row[0]))
    found = mine.results()["covariance"][0, 0]
    np.testing.assert_allclose(found, theirs.get_stats(), rtol=1e-10)


# The package divides by the variance of one sample.
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_sobol_indices():
    generator = np.random.default_rng(3)
    weights = np.array([1.0, 2.0, 0.5])[:, None]
    mine = SobolIndices(1, (POINTS,), 3)
    theirs = sensitivity.IterativeSensitivityMartinez(nb_parms=3, dim=POINTS)
    for _ in range(SAMPLES):
        a, b = generator.normal(size=(2, 3, POINTS))
        frozen = [np.where(np.arange(3)[:, None] == i, b, a) for i in range(3)]
        members = np.array([np.sum(weights * one**3, axis=0) for one in (a, b, *frozen)])
        mine.update(0, members)
        theirs.increment(members)
    found = mine.results()
    np.testing.assert_allclose(found["first_order"][0].T, theirs.getFirstOrderIndices(), rtol=1e-9)
    np.testing.assert_allclose(found["total_order"][0].T, theirs.getTotalOrderIndices(), rtol=1e-9)


def test_the_error_of_quantiles_is_not_larger():
    """Both are stochastic approximations, with another gain. The exact quantile is that of the distribution."""
    level, exact, points = 0.9, 1.2815515655446004, 400
    samples = np.random.default_rng(4).normal(size=(1000, points))
    mine, moments = Quantiles(1, points, [level]), Moments(1, points, order=2)
    theirs = iterative_quantile.IterativeQuantile(points, alpha=level, max_it=len(samples))
    low = high = samples[0]
    for sample in samples:
        moments.update(0, sample[None], np.ones(1))
        low, high = np.minimum(low, sample), np.maximum(high, sample)
        deviation = np.sqrt(np.nan_to_num(moments.variance(0)))
        mine.update(0, sample[None], np.ones(1), deviation, low, high)
        # The package changes the first sample that it is given.
        theirs.increment(sample.copy())
    mine_rms = np.sqrt(np.mean((mine.results()["quantile"][0, 0] - exact) ** 2))
    theirs_rms = np.sqrt(np.mean((theirs.get_stats() - exact) ** 2))
    assert mine_rms < theirs_rms

"""`r3`: retain difficult points, release the others, and resample those from the prior.

Points of a population whose difficulty is above the mean are retained, and all others are replaced by
draws from the prior. The population therefore accumulates where the error of the network is large,
and disperses when the error decreases. `retain_resample_release` implements this for collocation
points, as in the paper.

A simulation that has been run can't be released, but its samples can be. The method `r3` therefore
draws every simulation from the prior and requires the eviction rule "difficulty" of the reservoir: a
sample may be evicted only while its last loss is not above the mean.

Reference: Daw et al., "Mitigating propagation failures in physics-informed neural networks using
retain-resample-release (R3) sampling", arXiv 2207.02338. The causal gate of the paper is not
implemented.
"""

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.arguments import Arguments
from melissa_gen.sampling.designs.design_sampler import DesignSampler
from melissa_gen.sampling.designs.uniform import UniformSequence
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["R3Arguments", "build", "retain_resample_release"]

Array = NDArray[np.float64]


class R3Arguments(Arguments):
    """Arguments of `r3`, which has none."""


def retain_resample_release(
    points: Array, difficulty: Array, prior: Prior, rng: np.random.Generator
) -> tuple[Array, NDArray[np.bool_]]:
    """Performs one step of R3 on a population of points.

    Args:
        points: (n, d), in physical units.
        difficulty: (n,), for example the absolute residual of a differential equation at each point.
        prior: Prior distribution p(λ), from which released points are resampled.
        rng: Random generator for the new points.

    Returns:
        The new population (n, d), in which retained points keep their rows, and whether each point
        was retained (n,).

    Example:
        >>> prior = Prior.from_mapping({"x": {"low": 0.0, "high": 1.0}})
        >>> points, rng = np.array([[0.1], [0.9]]), np.random.default_rng(1)
        >>> retain_resample_release(points, np.array([0.0, 5.0]), prior, rng)[1]
        array([False,  True])
    """
    retained = difficulty > difficulty.mean() if len(points) else np.zeros(0, dtype=bool)
    fresh = prior.sample(int((~retained).sum()), rng)
    population = np.array(points, dtype=np.float64)
    population[~retained] = fresh
    return population, retained


def build(prior: Prior, seed: int, arguments: R3Arguments, schedule: Schedule) -> DesignSampler:
    """Creates the `r3` sampler, which draws from the prior; the reservoir retains the difficult samples."""
    return DesignSampler("r3", prior, UniformSequence(prior, seed))

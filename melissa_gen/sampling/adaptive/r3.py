"""`r3`: retain what is hard, release the rest, resample it from the prior.

Of a population of points, those whose difficulty is above the mean are retained, and all others are
replaced by draws from the prior; so the population gathers where the network fails, and leaves when
it no longer does. `retain_resample_release` does this to collocation points, as in the paper.

A simulation that has been run can't be released; what can be is its samples. So the *method* `r3`
draws every simulation from the prior, and the server gives the reservoir the eviction "difficulty":
a sample makes room only while its last loss is not above the mean.

Reference: Daw et al., "Mitigating propagation failures in physics-informed neural networks using
retain-resample-release (R3) sampling", arXiv 2207.02338; without its causal gate.
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
    """Arguments of `r3`: none."""


def retain_resample_release(
    points: Array, difficulty: Array, prior: Prior, rng: np.random.Generator
) -> tuple[Array, NDArray[np.bool_]]:
    """One step of R3 on a population of points.

    Args:
        points: (n, d), physical units.
        difficulty: (n,), e.g. the absolute residual of a differential equation at each point.
        prior: p(λ), what is resampled comes from it.
        rng: draws it.

    Returns:
        The new population (n, d), retained points in their places, and which were retained (n,).

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
    """The `r3` sampler: its refill from the prior; what is retained is the reservoir's part."""
    return DesignSampler("r3", prior, UniformSequence(prior, seed))

"""`twisted`: guided reverse diffusion with a sequential Monte Carlo correction.

The sampler moves many particles. Each reverse step is drawn from a guided proposal r, and each
particle is weighted by the error of the guidance. The particles are resampled when their effective
number is below one half of their number. With a twisting function T the weight of a step is

    w = [p(x_s | x_t) / r(x_s | x_t)] · T(x_s) / T(x_t).

In the paper, T(x_t) is a(x̂0(x_t))^β. Any positive T that ends as a(x0)^β is valid. The exponent is
β α_t⁴ here: at a high noise level x̂0 carries little information about x0, and a large exponent would
only reduce the number of effective particles.

The proposal r is the exact reverse step tilted by exp(g · x0). With M(g; x) = E[exp(g · x0) | x],

    p(x_s | x_t) / r(x_s | x_t) = M(g; x_t) / M(g; x_s),

because x0 depends on x_t only through x_s. All terms have a closed form (`box_diffusion`). The only
error is that of a finite number of particles, for any number of steps.

Reference: Wu et al., "Practical and asymptotically exact conditional sampling in diffusion models"
(twisted diffusion sampler), arXiv 2306.17775.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from melissa_gen.sampling.acquisition.base_acquisition import Acquisition, effective_size
from melissa_gen.sampling.adaptive.acquisition_rule import (
    AcquisitionArguments,
    Proposer,
    acquisition_sampler,
)
from melissa_gen.sampling.adaptive.diffusion_posterior import slope_at
from melissa_gen.sampling.adaptive.mixture import MixtureSampler
from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.networks.box_diffusion import BoxDiffusion
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["Twisted", "TwistedArguments", "build", "systematic"]

Array = NDArray[np.float64]


class TwistedArguments(AcquisitionArguments):
    """Arguments of `twisted`."""

    steps: int = Field(40, ge=5, le=1000, description="number of reverse steps")
    particles: int = Field(256, ge=16, le=100_000, description="minimum number of particles")
    particles_per_point: int = Field(4, ge=1, le=100, description="particles per requested point")
    resample_below: float = Field(
        0.5,
        gt=0.0,
        le=1.0,
        description="relative effective sample size below which particles are resampled",
    )


def systematic(log_weight: Array, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draws n indices in proportion to weights, by systematic resampling.

    Args:
        log_weight: (m,), logarithms of the weights.
        n: Number of indices.
        rng: Random generator.

    Returns:
        (n,), indices from 0 to m - 1 in random order.
    """
    weight = np.exp(log_weight - log_weight.max())
    edges = np.cumsum(weight) / weight.sum()
    positions = (np.arange(n) + rng.random()) / n
    index = np.minimum(np.searchsorted(edges, positions, side="right"), len(weight) - 1)
    return rng.permutation(index).astype(np.int64)


class Twisted(Proposer):
    """Proposer of the method `twisted`; exact in the limit of many particles.

    Args:
        dimension: Number of axes k of the unit cube.
        steps: Number of reverse steps.
        particles: Minimum number of particles.
        particles_per_point: Particles per requested point; more of them reduce the correlation
            between points.
        resample_below: Relative effective sample size below which the particles are resampled.
    """

    exact = True

    def __init__(
        self,
        dimension: int,
        steps: int = 40,
        particles: int = 256,
        particles_per_point: int = 4,
        resample_below: float = 0.5,
    ) -> None:
        self._diffusion = BoxDiffusion(dimension, steps)
        self._particles = particles
        self._per_point = particles_per_point
        self._resample_below = resample_below
        self._lowest_share = 1.0
        self._resampled = 0

    def draw(
        self, n: int, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> Array:
        """Draws n points (n, k) of the unit cube."""
        diffusion = self._diffusion
        count = max(self._particles, self._per_point * n)
        x = diffusion.start(count, rng)
        posterior = diffusion.denoised(x, diffusion.steps)
        twist, slope = slope_at(
            posterior.mean, acquisition, beta * self._twist_exponent(diffusion.steps)
        )
        log_weight = twist
        self._lowest_share, self._resampled = 1.0, 0
        for level in range(diffusion.steps, 0, -1):
            share = effective_size(log_weight) / count
            self._lowest_share = min(self._lowest_share, share)
            if share < self._resample_below:
                kept = systematic(log_weight, count, rng)
                x, twist, slope = x[kept], twist[kept], slope[kept]
                posterior = diffusion.denoised(x, level)
                log_weight = np.zeros(count)
                self._resampled += 1
            x = diffusion.step(x, posterior.draw(slope, rng), level, rng)
            log_weight = log_weight + posterior.log_mgf(slope) - twist
            if level > 1:
                posterior = diffusion.denoised(x, level - 1)
                log_weight -= posterior.log_mgf(slope)
                twist, slope = slope_at(
                    posterior.mean, acquisition, beta * self._twist_exponent(level - 1)
                )
            else:
                log_weight -= (slope * x).sum(axis=1)
                # Gradients may be those of an interpolation; the last weight is that of the acquisition itself.
                twist = beta * acquisition.value(0.5 * (x + 1.0))
            log_weight += twist
        unit: Array = 0.5 * (x[systematic(log_weight, n, rng)] + 1.0)
        return unit

    def _twist_exponent(self, level: int) -> float:
        return self._diffusion.alpha(level) ** 4

    def diagnostics(self) -> dict[str, float]:
        """Returns the lowest relative effective sample size and the number of resamplings of the last draw."""
        return {"particle_ess": self._lowest_share, "resampled": float(self._resampled)}


def build(
    prior: Prior, seed: int, arguments: TwistedArguments, schedule: Schedule
) -> MixtureSampler:
    """Creates the `twisted` sampler."""
    proposer = Twisted(
        prior.unit_dimension,
        arguments.steps,
        arguments.particles,
        arguments.particles_per_point,
        arguments.resample_below,
    )
    return acquisition_sampler(
        "twisted", prior, seed, arguments, proposer, schedule, arguments.beta
    )

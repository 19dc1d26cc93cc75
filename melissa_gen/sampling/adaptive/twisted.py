"""`twisted`: guided reverse diffusion with a sequential Monte Carlo correction, exact in its limit.

The twisted diffusion sampler (Wu et al., arXiv 2306.17775) runs many particles. Each is proposed by
guidance and weighed by how wrong the guidance was; particles are resampled when their effective
number falls below half. With a twisting function T the weight of a step is

    w = [p(x_s | x_t) / r(x_s | x_t)] · T(x_s) / T(x_t).

The paper's T(x_t) is a(x̂0(x_t))^β. Any positive T that ends as a(x0)^β is allowed; ours takes the
exponent β α_t⁴, since at high noise x̂0 says little of x0 and a bold T only starves the particles.

The proposal r here is the exact reverse step tilted by exp(g · x0), so with M(g; x) = E[exp(g · x0) | x]

    p(x_s | x_t) / r(x_s | x_t) = M(g; x_t) / M(g; x_s),

since x0 depends on x_t only through x_s. All of it is in closed form (`box_diffusion`), so the only
error is that of a finite number of particles, whatever the number of steps.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from melissa_gen.sampling.acquisition.base_acquisition import Acquisition
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

__all__ = ["Twisted", "TwistedArguments", "build", "effective_size", "systematic"]

Array = NDArray[np.float64]


class TwistedArguments(AcquisitionArguments):
    """Arguments of `twisted`."""

    steps: int = Field(40, ge=5, le=1000, description="reverse steps")
    particles: int = Field(256, ge=16, le=100_000, description="fewest particles of a run")
    particles_per_point: int = Field(4, ge=1, le=100, description="particles for each point asked")
    resample_below: float = Field(
        0.5, gt=0.0, le=1.0, description="effective share of particles that triggers resampling"
    )


def effective_size(log_weight: Array) -> float:
    """Effective sample size (Σw)² / Σw² of weights given by their logs, (n,)."""
    weight = np.exp(log_weight - log_weight.max())
    return float(weight.sum() ** 2 / (weight @ weight))


def systematic(log_weight: Array, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """N indices drawn ∝ exp(log_weight) by systematic resampling, in random order."""
    weight = np.exp(log_weight - log_weight.max())
    edges = np.cumsum(weight) / weight.sum()
    places = (np.arange(n) + rng.random()) / n
    index = np.minimum(np.searchsorted(edges, places, side="right"), len(weight) - 1)
    return rng.permutation(index).astype(np.int64)


class Twisted(Proposer):
    """Proposer of `twisted`.

    Args:
        dimension: axes k of the unit cube.
        steps: reverse steps.
        particles: fewest particles of a run.
        particles_per_point: particles for each point asked for; more means less correlation.
        resample_below: share of the particles below which their effective number triggers
            resampling.
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
        self._lowest = 1.0
        self._resampled = 0

    def draw(
        self, n: int, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> Array:
        """Draws n points (n, k) of the unit cube."""
        diffusion = self._diffusion
        count = max(self._particles, self._per_point * n)
        x = diffusion.start(count, rng)
        law = diffusion.denoised(x, diffusion.steps)
        twist, slope = slope_at(law.mean, acquisition, beta * self._twist_exponent(diffusion.steps))
        log_weight = twist
        self._lowest, self._resampled = 1.0, 0
        for level in range(diffusion.steps, 0, -1):
            share = effective_size(log_weight) / count
            self._lowest = min(self._lowest, share)
            if share < self._resample_below:
                kept = systematic(log_weight, count, rng)
                x, twist, slope = x[kept], twist[kept], slope[kept]
                law = diffusion.denoised(x, level)
                log_weight = np.zeros(count)
                self._resampled += 1
            x = diffusion.step(x, law.draw(slope, rng), level, rng)
            log_weight = log_weight + law.log_mgf(slope) - twist
            if level > 1:
                law = diffusion.denoised(x, level - 1)
                log_weight -= law.log_mgf(slope)
                twist, slope = slope_at(
                    law.mean, acquisition, beta * self._twist_exponent(level - 1)
                )
            else:
                log_weight -= (slope * x).sum(axis=1)
                twist, _ = slope_at(x, acquisition, beta)
            log_weight += twist
        unit: Array = 0.5 * (x[systematic(log_weight, n, rng)] + 1.0)
        return unit

    def _twist_exponent(self, level: int) -> float:
        return self._diffusion.alpha(level) ** 4

    def diagnostics(self) -> dict[str, float]:
        """Of the last run: the lowest effective share of the particles, and its resamplings."""
        return {"particle_ess": self._lowest, "resampled": float(self._resampled)}


def build(
    prior: Prior, seed: int, arguments: TwistedArguments, schedule: Schedule
) -> MixtureSampler:
    """The `twisted` sampler."""
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

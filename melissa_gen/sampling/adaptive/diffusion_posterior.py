"""`diffusion_posterior`: reverse diffusion guided towards p a^β.

Diffusion posterior sampling (Chung et al., arXiv 2209.14687) adds the guidance ∇_{x_t} log a(x̂0(x_t))^β to the score of
the prior, with x̂0 the denoised mean. Here the prior is a box and its score exact (`box_diffusion`). The Jacobian of x̂0
is (α/σ²) times Var(x0 | x_t), so that the guidance shifts the denoised mean by Var(x0 | x_t) · g, with g the slope of
β log a at x̂0: weight 1, and no step size to tune. That is `guidance: plain`. It takes a at the mean for the mean of a,
and where log a is curved it overshoots, since the slope is another where it leads: about a peak the draws have half to
three quarters of the target's width.

With `guidance: implicit` g is the slope where the guidance leads, and the shift is that of the whole law of x0 given
x_t, which is known, times exp(g · x0). For a normal prior and a normal bump this is exact. It is found by one secant
step along the shift, for one gradient more, and leaves nine tenths of the width, less about a peak much narrower than
the box. `calibrated` then sets the strength so that the draws are as concentrated as p a^β, measured by the mean of
log a (`learned`). Neither sees how much of p a^β lies in each of several separate modes; `twisted` does.

The score is followed along the probability flow, by Heun's method with steps that shorten as the noise vanishes (Karras
et al., arXiv 2206.00364, algorithm 1): ten steps err by 1 % of the box. Only the start is random. It is the next point
of a scrambled Sobol sequence, so that points are spread as evenly as the target lets them, within a generation and over
all of them.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from melissa_gen.sampling.acquisition.base_acquisition import Acquisition
from melissa_gen.sampling.adaptive.acquisition_rule import (
    AcquisitionArguments,
    Proposer,
    acquisition_sampler,
)
from melissa_gen.sampling.adaptive.mixture import MixtureSampler
from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.base import State
from melissa_gen.sampling.designs.quasi_random import SobolSequence
from melissa_gen.sampling.networks.box_diffusion import BoxDiffusion
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["DiffusionPosterior", "DiffusionPosteriorArguments", "build", "slope_at"]

Array = NDArray[np.float64]

Guidance = Literal["implicit", "plain"]


class DiffusionPosteriorArguments(AcquisitionArguments):
    """Arguments of `diffusion_posterior`."""

    steps: int = Field(10, ge=4, le=1000, description="steps of the flow")
    guidance: Guidance = Field(
        "implicit", description="slope of log a where the guidance leads, or at the denoised mean"
    )
    calibrated: bool = Field(
        True, description="set the strength so that the draws are as concentrated as p a^β"
    )


def slope_at(mean: Array, acquisition: Acquisition, beta: float) -> tuple[Array, Array]:
    """β log a (n,) and its gradient (n, k), at points (n, k) of the box [-1, 1]^k."""
    value, gradient = acquisition.value_and_gradient(0.5 * (mean + 1.0))
    return beta * value, 0.5 * beta * gradient


def _self_consistent(slope: Array, there: Array, way: Array, variance: Array) -> Array:
    """The strength t, (n,), for which t times the slope is, along the way, the slope where that leads.

    The slope is taken to fall evenly along the way. Of the whole shift a strength t yields r t / (1 + (r - 1) t), which
    has the right start and the right end: walls make it less and less. Together that is a quadratic equation in t.

    Args:
        slope: where the way begins, (n, k).
        there: where it ends.
        way: the shift of the denoised mean by the whole slope.
        variance: of x0 on each axis.
    """
    length = (way**2).sum(axis=1)
    moves = length > 1e-18

    def relative(part: Array, whole: Array) -> Array:
        return np.divide(part, whole, out=np.zeros(len(part)), where=moves)

    fall = relative(((slope - there) * way).sum(axis=1), (slope * way).sum(axis=1))
    r = np.maximum(relative((variance * slope * way).sum(axis=1), length), 1.0)
    b = 2.0 - r + r * np.maximum(fall, -0.5)  # a convex log a is not followed far
    return np.asarray(2.0 / (b + np.sqrt(b**2 + 4.0 * (r - 1.0))))


class DiffusionPosterior(Proposer):
    """Proposer of `diffusion_posterior`.

    Args:
        dimension: axes k of the unit cube.
        steps: steps of the flow.
        guidance: see the module.
        seed: of the sequence of starts.
    """

    exact = False

    def __init__(
        self, dimension: int, steps: int = 10, guidance: Guidance = "implicit", seed: int = 0
    ) -> None:
        self._dimension = dimension
        self._diffusion = BoxDiffusion(dimension, steps, power=2.0)
        self._implicit = guidance == "implicit"
        self._starts = SobolSequence(
            dimension, int(np.random.default_rng([seed, 1]).integers(2**31))
        )

    def draw(
        self, n: int, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> Array:
        """Draws n points (n, k) of the unit cube."""
        starts = SobolSequence(self._dimension, int(rng.integers(2**31)))
        return self._carried(starts.draw(n), acquisition, beta)

    def next(
        self, n: int, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> Array:
        """Draws the next n proposals (n, k), from the sequence of starts that all generations share."""
        return self._carried(self._starts.draw(n), acquisition, beta)

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        return self._starts.state()

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self._starts.restore(state)

    def _carried(self, starts: Array, acquisition: Acquisition, beta: float) -> Array:
        """Where the flow carries points (n, k) of the unit cube."""
        diffusion = self._diffusion
        x = diffusion.start_at(starts)
        for level in range(diffusion.steps, 1, -1):
            here = self._denoised(x, level, acquisition, beta)
            ahead = self._denoised(diffusion.flow(x, here, level), level - 1, acquisition, beta)
            x = diffusion.flow(x, 0.5 * (here + ahead), level)
        return np.asarray(0.5 * (self._denoised(x, 1, acquisition, beta) + 1.0))

    def _denoised(self, x: Array, level: int, acquisition: Acquisition, beta: float) -> Array:
        """The mean of x0 given x at a level, times a^β: (n, k), inside the box."""
        law = self._diffusion.denoised(x, level)
        mean, variance = law.mean_and_variance()
        _, slope = slope_at(mean, acquisition, beta)
        if not self._implicit:  # a steep log a must not throw the mean out of the box
            return np.clip(mean + variance * slope, -1.0, 1.0)
        tilted = law.tilted(slope).mean
        _, there = slope_at(tilted, acquisition, beta)
        t = _self_consistent(slope, there, tilted - mean, variance)
        return law.tilted(t[:, None] * slope).mean


def build(
    prior: Prior, seed: int, arguments: DiffusionPosteriorArguments, schedule: Schedule
) -> MixtureSampler:
    """The `diffusion_posterior` sampler."""
    proposer = DiffusionPosterior(prior.unit_dimension, arguments.steps, arguments.guidance, seed)
    return acquisition_sampler(
        "diffusion_posterior",
        prior,
        seed,
        arguments,
        proposer,
        schedule,
        arguments.beta,
        arguments.calibrated,
    )

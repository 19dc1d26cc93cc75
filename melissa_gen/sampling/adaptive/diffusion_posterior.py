"""`diffusion_posterior`: diffusion posterior sampling of p a^β with the exact score of the prior.

Diffusion posterior sampling adds the guidance ∇_{x_t} log a(x̂0(x_t))^β to the score of the prior, with x̂0 the denoised
mean. The prior is a box, and its score is known exactly (`box_diffusion`). The Jacobian of x̂0 is (α/σ²) Var(x0 | x_t).
The guidance therefore shifts the denoised mean by Var(x0 | x_t) · g, with g the gradient of β log a at x̂0. This form,
`guidance: plain`, has weight 1 and no step size to tune. It replaces the mean of a by a at the mean, and it overshoots
where log a is curved, because the gradient changes along the shift. Around a peak, the width of the draws is between
one half and three quarters of the width of the target.

With `guidance: implicit`, g is the gradient at the end of the shift, and the shift is that of the whole distribution of
x0 given x_t, multiplied by exp(g · x0). For a normal prior and a normal peak this is exact. The solution is found
approximately by one secant step along the shift, which needs one more gradient. The width of the draws is then nine
tenths of that of the target, or less around a peak that is much narrower than the box. The option `calibrated` adjusts
the strength so that the draws are as concentrated as p a^β, measured by the mean of log a (`AcquisitionRule`). The
weights of several separate modes are not corrected; the method `twisted` samples them correctly.

With `guidance: dps`, the sampler is that of the first reference: ancestral steps from independent starting points, each
with new noise, guided by the gradient at the denoised mean. It needs more steps, such as 50.

In the two other forms, the score is integrated along the probability flow by Heun's method, with steps that become
shorter as the noise vanishes. With ten steps the error is 1 % of the box. Only the starting point is random: it is the
next point of a scrambled Sobol sequence. The points are therefore spread as evenly as the target permits, within a
generation and over all generations.

References: Chung et al., "Diffusion posterior sampling for general noisy inverse problems", arXiv 2209.14687; Heun's
method: Karras et al., arXiv 2206.00364, algorithm 1.
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

Guidance = Literal["implicit", "plain", "dps"]


class DiffusionPosteriorArguments(AcquisitionArguments):
    """Arguments of `diffusion_posterior`."""

    steps: int = Field(
        10, ge=4, le=1000, description="number of steps; for guidance `dps`, 50 is better"
    )
    guidance: Guidance = Field(
        "implicit",
        description="`implicit`: probability flow with the gradient of log a at the end of the shift; `plain`: the "
        "same at the denoised mean; `dps`: ancestral steps with the gradient at the denoised mean",
    )
    calibrated: bool = Field(
        True, description="adjust the strength so that the draws are as concentrated as p a^β"
    )


def slope_at(mean: Array, acquisition: Acquisition, beta: float) -> tuple[Array, Array]:
    """Returns β log a (n,) and its gradient (n, k) at points `mean` (n, k) of the box [-1, 1]^k."""
    value, gradient = acquisition.value_and_gradient(0.5 * (mean + 1.0))
    return beta * value, 0.5 * beta * gradient


def _implicit_strength(slope: Array, end_slope: Array, shift: Array, variance: Array) -> Array:
    """Returns the strength t of the guidance that solves the implicit equation along the shift.

    At the solution, t times the gradient at the start of the shift equals the gradient at its end, both projected onto
    the shift. The gradient is assumed to change linearly along the shift. A strength t yields the part
    r t / (1 + (r - 1) t) of the whole shift: this is exact at t = 0 in first order and at t = 1, and in between it
    accounts for the walls of the box. Together, this is a quadratic equation in t.

    Args:
        slope: (n, k), gradient of β log a at the start of the shift.
        end_slope: (n, k), gradient at the end of the shift by the whole `slope`.
        shift: (n, k), shift of the denoised mean by the whole `slope`.
        variance: (n, k), variance of x0 on each axis.

    Returns:
        (n,), the strength.
    """
    length = (shift**2).sum(axis=1)
    moves = length > 1e-18

    def relative(part: Array, whole: Array) -> Array:
        return np.divide(part, whole, out=np.zeros(len(part)), where=moves)

    fall = relative(((slope - end_slope) * shift).sum(axis=1), (slope * shift).sum(axis=1))
    r = np.maximum(relative((variance * slope * shift).sum(axis=1), length), 1.0)
    # The bound limits the strength where log a is convex.
    b = 2.0 - r + r * np.maximum(fall, -0.5)
    return np.asarray(2.0 / (b + np.sqrt(b**2 + 4.0 * (r - 1.0))))


class DiffusionPosterior(Proposer):
    """Proposer of the method `diffusion_posterior`.

    Args:
        dimension: Number of axes k of the unit cube.
        steps: Number of steps along the probability flow, or of ancestral steps.
        guidance: Where the gradient of log a is taken, and whether steps have noise; the module describes the forms.
        seed: Seed of the Sobol sequence of starting points.
    """

    exact = False

    def __init__(
        self, dimension: int, steps: int = 10, guidance: Guidance = "implicit", seed: int = 0
    ) -> None:
        self._dimension = dimension
        self._diffusion = BoxDiffusion(dimension, steps, power=2.0)
        self._implicit, self._ancestral = guidance == "implicit", guidance == "dps"
        self._starts = SobolSequence(
            dimension, int(np.random.default_rng([seed, 1]).integers(2**31))
        )

    def draw(
        self, n: int, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> Array:
        """Draws n points (n, k) of the unit cube."""
        if self._ancestral:
            return self._ancestral_draw(n, acquisition, beta, rng)
        starts = SobolSequence(self._dimension, int(rng.integers(2**31)))
        return self._transport(starts.draw(n), acquisition, beta)

    def next(
        self, n: int, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> Array:
        """Draws the next n proposals (n, k); the starting points of the flow continue one sequence."""
        if self._ancestral:
            return self._ancestral_draw(n, acquisition, beta, rng)
        return self._transport(self._starts.draw(n), acquisition, beta)

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        return self._starts.state()

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self._starts.restore(state)

    def _ancestral_draw(
        self, n: int, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> Array:
        """Draws n points (n, k) by ancestral steps. Without guidance they follow the prior for any number of steps."""
        diffusion = self._diffusion
        x = diffusion.start(n, rng)
        for level in range(diffusion.steps, 0, -1):
            posterior = diffusion.denoised(x, level)
            _, slope = slope_at(posterior.mean, acquisition, beta)
            # x0 is drawn given x and the linear guidance: its mean would be sufficient only for many steps.
            x = diffusion.step(x, posterior.draw(slope, rng), level, rng)
        return np.asarray(0.5 * (x + 1.0))

    def _transport(self, starts: Array, acquisition: Acquisition, beta: float) -> Array:
        """Maps starting points (n, k) of the unit cube to draws (n, k) along the probability flow."""
        diffusion = self._diffusion
        x = diffusion.start_at(starts)
        for level in range(diffusion.steps, 1, -1):
            here = self._denoised(x, level, acquisition, beta)
            ahead = self._denoised(diffusion.flow(x, here, level), level - 1, acquisition, beta)
            x = diffusion.flow(x, 0.5 * (here + ahead), level)
        return np.asarray(0.5 * (self._denoised(x, 1, acquisition, beta) + 1.0))

    def _denoised(self, x: Array, level: int, acquisition: Acquisition, beta: float) -> Array:
        """Returns the guided mean (n, k) of x0 given x (n, k) at a level, inside the box."""
        posterior = self._diffusion.denoised(x, level)
        mean, variance = posterior.mean_and_variance()
        _, slope = slope_at(mean, acquisition, beta)
        if not self._implicit:
            # A steep log a can shift the mean out of the box.
            return np.clip(mean + variance * slope, -1.0, 1.0)
        tilted = posterior.tilted(slope).mean
        _, end_slope = slope_at(tilted, acquisition, beta)
        t = _implicit_strength(slope, end_slope, tilted - mean, variance)
        return posterior.tilted(t[:, None] * slope).mean


def build(
    prior: Prior, seed: int, arguments: DiffusionPosteriorArguments, schedule: Schedule
) -> MixtureSampler:
    """Creates the `diffusion_posterior` sampler."""
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

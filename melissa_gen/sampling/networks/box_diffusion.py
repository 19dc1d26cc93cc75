"""The diffusion process of a uniform box in closed form: denoiser, reverse steps and probability flow.

The forward process is variance preserving: x_t = α_t x0 + σ_t ε with α_t = cos(π τ / 2) and
σ_t = sin(π τ / 2). Each axis of x0 is uniform on [-1, 1]. Given x_t, it is therefore a normal
distribution with mean m = x_t / α_t and standard deviation s = σ_t / α_t, truncated to [-1, 1]. The
score, the denoised mean and the reverse step do not need a network. Differences of Φ underflow, so
that they are computed from log Φ.

There are two ways to sample. A reverse step draws x0 from its truncated normal distribution, and then
x_s from q(x_s | x_t, x0). This inverts the forward process exactly for steps of any size. Alternatively,
only the starting point is random, and it is moved along the probability flow, an ordinary differential
equation with the same marginal distributions. Without guidance the result of both is uniform; that of
the flow up to the discretization error.

References: Ho et al., arXiv 2006.11239 (equations 6 and 7); cosine schedule: arXiv 2102.09672; flow:
Song et al., arXiv 2011.13456 (section 4.3), written as in arXiv 2010.02502 (equation 12).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["BoxDiffusion", "DenoisedDistribution", "log_phi_difference"]

Array = NDArray[np.float64]

_LOG_ROOT_2PI = 0.5 * float(np.log(2.0 * np.pi))
# Highest noise level: α is small but not 0, so that m and s are finite.
_TAU_MAX = 0.98


def log_phi_difference(a: Array, b: Array) -> Array:
    """Returns log(Φ(b) - Φ(a)) for a < b element by element, without underflow in the tails."""
    from scipy.special import log_ndtr

    flip = a > 0.0
    low, high = np.where(flip, -b, a), np.where(flip, -a, b)
    upper = log_ndtr(high)
    return np.asarray(upper + np.log(-np.expm1(np.minimum(log_ndtr(low) - upper, -1e-300))))


def _draw_truncated(a: Array, b: Array, rng: np.random.Generator) -> Array:
    """Draws standard normal values truncated to [a, b], by inverting log Φ."""
    from scipy.special import log_ndtr, ndtri_exp

    flip = a > 0.0
    low, high = np.where(flip, -b, a), np.where(flip, -a, b)
    u = rng.random(a.shape)
    with np.errstate(divide="ignore"):
        log_p = np.logaddexp(np.log1p(-u) + log_ndtr(low), np.log(u) + log_ndtr(high))
    z = np.clip(ndtri_exp(np.minimum(log_p, 0.0)), low, high)
    drawn: Array = np.where(flip, -z, z)
    return drawn


@dataclass(frozen=True)
class DenoisedDistribution:
    """The distribution of x0 given x_t: on each axis a normal distribution truncated to [-1, 1].

    Args:
        m: (n, k), mean before truncation.
        s: Standard deviation before truncation.
    """

    m: Array
    s: float

    @property
    def mean(self) -> Array:
        """The denoised mean x̂0 = m + s (φ(A) - φ(B)) / (Φ(B) - Φ(A)), (n, k), inside the box."""
        a, b = self._bounds(self.m)
        log_z = log_phi_difference(a, b)
        shift = np.exp(_log_phi(a) - log_z) - np.exp(_log_phi(b) - log_z)
        return np.clip(self.m + self.s * shift, -1.0, 1.0)

    def mean_and_variance(self) -> tuple[Array, Array]:
        """Returns the denoised mean x̂0 (n, k) and the variance of x0 on each axis (n, k)."""
        a, b = self._bounds(self.m)
        log_z = log_phi_difference(a, b)
        at_a, at_b = np.exp(_log_phi(a) - log_z), np.exp(_log_phi(b) - log_z)
        shift = at_a - at_b
        mean = np.clip(self.m + self.s * shift, -1.0, 1.0)
        variance = self.s**2 * (1.0 + a * at_a - b * at_b - shift**2)
        # The bounds correct cancellation in the tails. No distribution on [-1, 1] has a variance above 1.
        return mean, np.clip(variance, 0.0, min(self.s**2, 1.0))

    def tilted(self, slope: Array) -> "DenoisedDistribution":
        """Returns the distribution multiplied by exp(g · x0), with g = `slope` (n, k): m changes by s² g."""
        return DenoisedDistribution(self.m + self.s**2 * slope, self.s)

    def log_mgf(self, slope: Array) -> Array:
        """Returns log E[exp(g · x0)] (n,) for g = `slope` (n, k)."""
        shifted = self._bounds(self.tilted(slope).m)
        log_ratio = log_phi_difference(*shifted) - log_phi_difference(*self._bounds(self.m))
        each = slope * self.m + 0.5 * (slope * self.s) ** 2 + log_ratio
        return np.asarray(each.sum(axis=1))

    def draw(self, slope: Array, rng: np.random.Generator) -> Array:
        """Draws x0 (n, k) from the distribution multiplied by exp(g · x0), with g = `slope` (n, k)."""
        m = self.tilted(slope).m
        return np.clip(m + self.s * _draw_truncated(*self._bounds(m), rng), -1.0, 1.0)

    def _bounds(self, m: Array) -> tuple[Array, Array]:
        return (-1.0 - m) / self.s, (1.0 - m) / self.s


def _log_phi(z: Array) -> Array:
    return -0.5 * z * z - _LOG_ROOT_2PI


class BoxDiffusion:
    """The noise levels t = steps ... 1, and the steps between them; level 0 has no noise.

    Args:
        dimension: Number of axes k.
        steps: Number of reverse steps.
        power: Level t is at τ ∝ (t / steps)^power. Above 1, steps become shorter as the noise
            vanishes.
    """

    def __init__(self, dimension: int, steps: int, power: float = 1.0) -> None:
        self.dimension = dimension
        self.steps = steps
        tau = _TAU_MAX * (np.arange(steps + 1) / steps) ** power
        self._alpha = np.cos(0.5 * np.pi * tau)
        self._sigma = np.sin(0.5 * np.pi * tau)

    def start(self, n: int, rng: np.random.Generator) -> Array:
        """Draws x (n, k) at the highest level from its exact distribution."""
        x0 = rng.uniform(-1.0, 1.0, size=(n, self.dimension))
        noise = rng.standard_normal((n, self.dimension))
        return np.asarray(self._alpha[-1] * x0 + self._sigma[-1] * noise)

    def start_at(self, u: Array) -> Array:
        """Maps points u (n, k) of the unit cube to x (n, k) at the highest level.

        The map is the quantile function of a normal distribution with the variance of x. The
        approximation is close, because x0 contributes only a thousandth of the variance.
        """
        from scipy.special import ndtri

        width = np.sqrt(self._alpha[-1] ** 2 / 3.0 + self._sigma[-1] ** 2)
        return np.asarray(width * ndtri(np.clip(u, 1e-12, 1.0 - 1e-12)))

    def alpha(self, level: int) -> float:
        """Returns α at a level; it is 1 at level 0 and near 0 at the highest level."""
        return float(self._alpha[level])

    def noise(self, level: NDArray[np.int64]) -> tuple[Array, Array]:
        """Returns α (n,) and σ (n,) at levels (n,)."""
        return self._alpha[level], self._sigma[level]

    def denoised(self, x: Array, level: int) -> DenoisedDistribution:
        """Returns the distribution of x0 given x (n, k) at `level`, at least 1."""
        alpha, sigma = float(self._alpha[level]), float(self._sigma[level])
        return DenoisedDistribution(x / alpha, sigma / alpha)

    def step(self, x: Array, x0: Array, level: int, rng: np.random.Generator) -> Array:
        """Draws x (n, k) one level lower from q(x | x_t, x0); from level 1 the result is x0."""
        if level == 1:
            return x0
        alpha, sigma = self._alpha[level], self._sigma[level]
        alpha_low, sigma_low = self._alpha[level - 1], self._sigma[level - 1]
        ratio = alpha / alpha_low
        added = sigma**2 - (ratio * sigma_low) ** 2
        mean = (ratio * sigma_low**2 * x + alpha_low * added * x0) / sigma**2
        noise = rng.standard_normal(x.shape)
        return np.asarray(mean + np.sqrt(added) * sigma_low / sigma * noise)

    def flow(self, x: Array, x0: Array, level: int) -> Array:
        """Returns x (n, k) one level lower along the probability flow, with the denoised mean fixed at x0."""
        noise = (x - self._alpha[level] * x0) / self._sigma[level]
        return np.asarray(self._alpha[level - 1] * x0 + self._sigma[level - 1] * noise)

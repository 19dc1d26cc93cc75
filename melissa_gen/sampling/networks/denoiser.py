"""A learned diffusion model of weighted points in the box [-1, 1]^k, with an optional context.

The forward process and the reverse steps are those of `box_diffusion`: x_t = α x0 + σ ε. The network is
trained on the target v = α ε - σ x0 at random levels, so that x̂0 = α x_t - σ v. Unlike a prediction
of ε, this does not divide by a small α. Samples are drawn as in a denoising diffusion probabilistic
model, with x̂0 clipped to the box.

With a context c (one number per point), c is omitted at random in training. The same network then
represents p(x | c) and p(x), which permits classifier-free guidance.

References: target v: Salimans and Ho, arXiv 2202.00512; sampling: Ho et al., arXiv 2006.11239
(algorithm 2); classifier-free guidance: Ho and Salimans, arXiv 2207.12598.
"""

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.base import State
from melissa_gen.sampling.networks.box_diffusion import BoxDiffusion
from melissa_gen.sampling.networks.perceptron import Perceptron, Single, train

__all__ = ["Denoiser"]

Array = NDArray[np.float64]

_FREQUENCIES = np.pi * np.array([0.5, 1.0, 2.0, 4.0])
# Probability with which the context is omitted in training.
_HIDDEN_CONTEXT = 0.2


class Denoiser:
    """A learned diffusion model.

    Args:
        dimension: Number of axes k.
        steps: Number of reverse steps.
        rng: Random generator that draws the initial weights.
        hidden: Width of the three hidden layers.
        batch: Number of points in a training batch.
    """

    def __init__(
        self,
        dimension: int,
        steps: int,
        rng: np.random.Generator,
        hidden: int = 64,
        batch: int = 256,
    ) -> None:
        self.diffusion = BoxDiffusion(dimension, steps)
        self._dimension = dimension
        self._batch = batch
        inputs = dimension + 2 * len(_FREQUENCIES) + 2
        self._network = Perceptron([inputs, hidden, hidden, hidden, max(dimension, 1)], rng)

    def fit(
        self,
        x0: Array,
        weight: Array,
        context: Array | None,
        steps: int,
        rng: np.random.Generator,
        rate: float = 3e-3,
    ) -> float:
        """Trains the network.

        Args:
            x0: (m, k), points of the box.
            weight: (m,), weights of the points, at least 0.
            context: (m,), the context of each point, or None.
            steps: Number of batches.
            rng: Random generator.
            rate: Largest learning rate.

        Returns:
            Mean loss of the last batches; it is 1 for a network that predicts the mean.
        """
        probability = weight / weight.sum()
        given = np.zeros(len(x0)) if context is None else context

        def batch() -> tuple[float, list[Single]]:
            row = rng.choice(len(x0), size=self._batch, p=probability)
            level = rng.integers(1, self.diffusion.steps + 1, size=self._batch)
            alpha, sigma = self._levels(level)
            noise = rng.standard_normal((self._batch, self._dimension))
            clean = x0[row]
            target = (alpha * noise - sigma * clean).astype(np.float32)
            shown = np.zeros(self._batch)
            if context is not None:
                shown = (rng.random(self._batch) >= _HIDDEN_CONTEXT).astype(np.float64)
            inputs = self._inputs(alpha * clean + sigma * noise, level, given[row], shown)
            out, kept = self._network.forward(inputs)
            error = out - target
            size = np.float32(error.size)
            return float((error**2).mean()), self._network.backward(kept, 2.0 * error / size)[0]

        return train(self._network, batch, steps, rate)

    def denoise(self, x: Array, level: int) -> tuple[Array, list[tuple[Single, Single]]]:
        """Returns x̂0 (n, k) at x (n, k) without context, and the activations that `pull_back` needs."""
        number = np.full(len(x), level)
        out, kept = self._network.forward(self._inputs(x, number, None, None))
        alpha, sigma = self._levels(number)
        return alpha * x - sigma * out, kept

    def pull_back(self, kept: list[tuple[Single, Single]], level: int, slope: Array) -> Array:
        """Returns (∂x̂0/∂x)ᵀ slope (n, k), for a gradient `slope` (n, k) at the x̂0 that `denoise` returned."""
        alpha, sigma = self._levels(np.full(len(slope), level))
        inner = self._network.backward(kept, (-sigma * slope).astype(np.float32))[1]
        return np.asarray(alpha * slope + inner[:, : self._dimension])

    def draw(
        self, n: int, context: Array | None, guidance: float, rng: np.random.Generator
    ) -> Array:
        """Draws n points of the box: (n, k).

        Args:
            n: Number of points.
            context: (n,), the context of each point, or None to draw from p(x).
            guidance: Scale s in v = v(∅) + s (v(c) - v(∅)); 1 draws from p(x | c).
            rng: Random generator.
        """
        diffusion = self.diffusion
        x = rng.standard_normal((n, self._dimension))
        shown = np.ones(n)
        for level in range(diffusion.steps, 0, -1):
            number = np.full(n, level)
            alpha, sigma = self._levels(number)
            out = self._network(
                self._inputs(x, number, context, None if context is None else shown)
            )
            if context is not None and guidance != 1.0:
                plain = self._network(self._inputs(x, number, None, None))
                out = plain + np.float32(guidance) * (out - plain)
            x0 = np.clip(alpha * x - sigma * out, -1.0, 1.0)
            x = diffusion.step(x, x0, level, rng)
        return x

    def state(self) -> State:
        """Returns the weights."""
        return self._network.state()

    def restore(self, state: State) -> None:
        """Restores the weights."""
        self._network.restore(state)

    def _levels(self, level: NDArray[np.int64]) -> tuple[Array, Array]:
        """Returns α (n, 1) and σ (n, 1) at levels (n,)."""
        alpha, sigma = self.diffusion.noise(level)
        return alpha[:, None], sigma[:, None]

    def _inputs(
        self, x: Array, level: NDArray[np.int64], context: Array | None, shown: Array | None
    ) -> Single:
        phase = (level / self.diffusion.steps)[:, None] * _FREQUENCIES
        flag = np.zeros(len(x)) if shown is None else shown
        value = np.zeros(len(x)) if context is None else flag * context
        columns = [x, np.cos(phase), np.sin(phase), value[:, None], flag[:, None]]
        return np.concatenate(columns, axis=1).astype(np.float32)

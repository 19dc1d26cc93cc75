"""A small multilayer perceptron with its derivatives, in numpy and single precision.

The networks of the generative samplers are so small that the overhead of a framework would dominate
their cost. The random generators of numpy are explicit, so that a sampler does not change the global
random state of the training and can be restored exactly.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import cos, pi

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.base import State

__all__ = ["Perceptron", "Single", "train"]

Single = NDArray[np.float32]

# Decay rates of Adam's moments.
_ADAM_MEAN, _ADAM_SQUARE = 0.9, 0.99


class Perceptron:
    """Linear layers with SiLU activations between them.

    Args:
        widths: Number of inputs, of units in each hidden layer, and of outputs.
        rng: Random generator that draws the initial weights. Those of the last layer are 0, so that
            the initial output is 0.
    """

    def __init__(self, widths: Sequence[int], rng: np.random.Generator) -> None:
        self.weights: list[Single] = []
        for fan_in, fan_out in pairwise(widths):
            normal = rng.standard_normal((fan_in, fan_out)) * np.sqrt(2.0 / max(fan_in, 1))
            self.weights += [normal.astype(np.float32), np.zeros(fan_out, dtype=np.float32)]
        self.weights[-2] *= 0.0

    def __call__(self, x: Single) -> Single:
        """Returns outputs (n, out) at inputs (n, in)."""
        return self.forward(x)[0]

    def forward(self, x: Single) -> tuple[Single, list[tuple[Single, Single]]]:
        """Returns outputs (n, out), and for `backward` each layer's input and the slope of its activation."""
        kept = []
        last = len(self.weights) // 2 - 1
        slope = np.ones((1, 1), dtype=np.float32)
        for layer in range(last + 1):
            kept.append((x, slope))
            x = x @ self.weights[2 * layer] + self.weights[2 * layer + 1]
            if layer < last:
                gate = 0.5 * (1.0 + np.tanh(0.5 * x))
                slope = gate * (1.0 + x * (1.0 - gate))
                x = x * gate
        return x, kept

    def backward(
        self, kept: list[tuple[Single, Single]], out: Single
    ) -> tuple[list[Single], Single]:
        """Returns the gradients of Σ out · output.

        Args:
            kept: What `forward` returned for the backward pass.
            out: (n, out), the gradient with respect to the outputs.

        Returns:
            The gradients with respect to the weights, in the order of `weights`, and with respect to
            the inputs (n, in).
        """
        gradient: list[Single] = []
        for layer in range(len(kept) - 1, -1, -1):
            x, slope = kept[layer]
            gradient = [x.T @ out, out.sum(axis=0), *gradient]
            out = (out @ self.weights[2 * layer].T) * slope
        return gradient, out

    def state(self) -> State:
        """Returns the weights."""
        return {f"w{i}": weight.copy() for i, weight in enumerate(self.weights)}

    def restore(self, state: State) -> None:
        """Restores the weights."""
        self.weights = [np.array(state[f"w{i}"]) for i in range(len(self.weights))]


def train(
    network: Perceptron,
    loss_gradient: Callable[[], tuple[float, list[Single]]],
    steps: int,
    rate: float,
) -> float:
    """Minimizes a stochastic loss with Adam; the learning rate follows a cosine schedule to 0.

    Args:
        network: Network, which is trained in place.
        loss_gradient: Function that returns the loss of a new batch and its gradient with respect to
            the weights.
        steps: Number of batches.
        rate: Largest learning rate.

    Returns:
        Mean loss of the last quarter of the batches.
    """
    mean = [np.zeros_like(weight) for weight in network.weights]
    square = [np.zeros_like(weight) for weight in network.weights]
    losses = []
    for step in range(1, steps + 1):
        loss, gradient = loss_gradient()
        losses.append(loss)
        now = rate * 0.5 * (1.0 + cos(pi * (step - 1) / steps))
        for i, slope in enumerate(gradient):
            mean[i] += (1.0 - _ADAM_MEAN) * (slope - mean[i])
            square[i] += (1.0 - _ADAM_SQUARE) * (slope**2 - square[i])
            size = np.sqrt(square[i] / (1.0 - _ADAM_SQUARE**step)) + 1e-8
            network.weights[i] -= np.float32(now) * mean[i] / (1.0 - _ADAM_MEAN**step) / size
    return float(np.mean(losses[-max(1, steps // 4) :]))

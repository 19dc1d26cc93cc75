"""A small multilayer perceptron with its derivatives, in plain numpy and single precision.

The generative samplers' networks are so small that a framework's overhead would cost most of the
time; and numpy's explicit generators can disturb neither the training beside them nor a restart.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import cos, pi

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.base import State

__all__ = ["Perceptron", "Single", "train"]

Single = NDArray[np.float32]

_MEAN, _SQUARE = 0.9, 0.99


class Perceptron:
    """Layers x W + b with SiLU between them.

    Args:
        widths: of the inputs, the hidden layers and the outputs.
        rng: draws the first weights; the last layer begins at 0, and so does the output.
    """

    def __init__(self, widths: Sequence[int], rng: np.random.Generator) -> None:
        self.weights: list[Single] = []
        for fan_in, fan_out in pairwise(widths):
            normal = rng.standard_normal((fan_in, fan_out)) * np.sqrt(2.0 / max(fan_in, 1))
            self.weights += [normal.astype(np.float32), np.zeros(fan_out, dtype=np.float32)]
        self.weights[-2] *= 0.0

    def __call__(self, x: Single) -> Single:
        """Outputs (n, out) at inputs (n, in)."""
        return self.forward(x)[0]

    def forward(self, x: Single) -> tuple[Single, list[tuple[Single, Single]]]:
        """Outputs (n, out), and what `backward` needs: each layer's input and activation slope."""
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
        """Gradients of Σ out · output in the weights (as `weights`) and in the inputs (n, in)."""
        gradient: list[Single] = []
        for layer in range(len(kept) - 1, -1, -1):
            x, slope = kept[layer]
            gradient = [x.T @ out, out.sum(axis=0), *gradient]
            out = (out @ self.weights[2 * layer].T) * slope
        return gradient, out

    def state(self) -> State:
        """The weights."""
        return {f"w{i}": weight.copy() for i, weight in enumerate(self.weights)}

    def restore(self, state: State) -> None:
        """Puts them back."""
        self.weights = [np.array(state[f"w{i}"]) for i in range(len(self.weights))]


def train(
    network: Perceptron,
    loss_gradient: Callable[[], tuple[float, list[Single]]],
    steps: int,
    rate: float,
) -> float:
    """Adam over a stochastic loss; the rate falls to 0 along half a cosine.

    Args:
        network: trained in place.
        loss_gradient: a new batch's loss and its gradient in the weights.
        steps: batches.
        rate: the largest learning rate.

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
            mean[i] += (1.0 - _MEAN) * (slope - mean[i])
            square[i] += (1.0 - _SQUARE) * (slope**2 - square[i])
            size = np.sqrt(square[i] / (1.0 - _SQUARE**step)) + 1e-8
            network.weights[i] -= np.float32(now) * mean[i] / (1.0 - _MEAN**step) / size
    return float(np.mean(losses[-max(1, steps // 4) :]))

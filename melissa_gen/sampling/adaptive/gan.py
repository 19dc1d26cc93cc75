"""`gan`: a generator network trained to maximize E[β log a(λ)] plus the entropy of its points.

This is not the game of two networks of the first reference: the acquisition takes the place of the discriminator,
because it already scores points and has a gradient, and is not trained against the generator. Without
the entropy term all points would collapse onto the maximum of a. With it, the
optimum is exactly p a^β. The objective is the *reverse* Kullback-Leibler divergence, which is mode
seeking. The diagnostic `coverage` measures how evenly the axes are filled; it decreases when modes
are lost.

A point is u = Φ(z + f(z)) with z standard normal and f a network whose output is 0 at first, so that
the untrained generator draws from the prior. The entropy of a batch is estimated from the distances
ρ to the third nearest neighbor, H ≈ d mean log ρ + constant. Its gradient moves points apart.

The density of the draws is unknown. It is approximated by an exponential tilt (`AcquisitionRule`).

References: Goodfellow et al., "Generative adversarial nets", arXiv 1406.2661; entropy-regularized
generators for energies: Dai et al., arXiv 1702.01691; entropy estimator: Kozachenko and Leonenko,
Problems of Information Transmission 23 (1987).
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from melissa_gen.sampling.acquisition.base_acquisition import Acquisition
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.adaptive.acquisition_rule import (
    AcquisitionArguments,
    Proposer,
    acquisition_sampler,
)
from melissa_gen.sampling.adaptive.mixture import MixtureSampler
from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.base import State
from melissa_gen.sampling.networks.perceptron import Perceptron, Single, train
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["Gan", "GanArguments", "build", "neighbor_entropy"]

Array = NDArray[np.float64]

_NEIGHBOR = 3
_BATCH = 256


class GanArguments(AcquisitionArguments):
    """Arguments of `gan`."""

    entropy: float = Field(1.0, ge=0.0, le=100.0, description="weight of the entropy term")
    training_steps: int = Field(150, ge=1, le=100_000, description="training batches per refit")
    hidden: int = Field(64, ge=8, le=1024, description="width of the generator's hidden layers")


class Gan(Proposer):
    """Proposer of the method `gan`.

    Args:
        dimension: Number of axes k of the unit cube.
        entropy: Weight of the entropy term.
        training_steps: Training batches per refit; the first fit takes twice as many.
        hidden: Width of the generator's hidden layers.
        rng: Random generator that draws the initial weights.
    """

    exact = False

    def __init__(
        self,
        dimension: int,
        entropy: float,
        training_steps: int,
        hidden: int,
        rng: np.random.Generator,
    ) -> None:
        self._dimension = dimension
        self._entropy = entropy
        self._training_steps = training_steps
        self._generator = Perceptron([dimension, hidden, hidden, max(dimension, 1)], rng)
        self._fits = 0
        self._objective = 0.0

    def fit(
        self, table: EvidenceTable, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> None:
        """Trains the generator on β log a plus the entropy of its points."""
        from scipy.special import ndtr

        def batch() -> tuple[float, list[Single]]:
            z = rng.standard_normal((_BATCH, self._dimension))
            out, kept = self._generator.forward(z.astype(np.float32))
            moved = z + out
            unit = ndtr(moved)
            value, slope = acquisition.value_and_gradient(unit)
            entropy, entropy_slope = neighbor_entropy(unit)
            ascent = beta * slope / _BATCH + self._entropy * entropy_slope
            density = np.exp(-0.5 * moved**2) / np.sqrt(2.0 * np.pi)
            back = (-ascent * density).astype(np.float32)
            # The gradient is clipped: a steep acquisition would otherwise move points to where Φ is flat.
            norm = float(np.sqrt((back**2).sum()))
            back /= np.float32(max(1.0, norm))
            loss = -float(beta * value.mean() + self._entropy * entropy)
            return loss, self._generator.backward(kept, back)[0]

        steps = self._training_steps * (1 if self._fits else 2)
        self._objective = -train(self._generator, batch, steps, 5e-3)
        self._fits += 1

    def draw(
        self, n: int, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> Array:
        """Draws n points (n, k) of the unit cube."""
        from scipy.special import ndtr

        z = rng.standard_normal((n, self._dimension))
        return np.asarray(ndtr(z + self._generator(z.astype(np.float32))))

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        return {"fits": [self._fits, self._objective], **self._generator.state()}

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self._fits, self._objective = state["fits"]
        self._generator.restore(state)

    def diagnostics(self) -> dict[str, float]:
        """Returns the mean objective at the end of the last fit, up to a constant."""
        return {"gan_objective": self._objective}


def neighbor_entropy(unit: Array) -> tuple[float, Array]:
    """Estimates the entropy of points from the distances to their third nearest neighbors.

    Args:
        unit: (n, k), points of the unit cube, with n at least 2.

    Returns:
        The entropy up to a constant, and its gradient (n, k).
    """
    n, k = unit.shape
    square = (unit**2).sum(axis=1)
    squared = np.maximum(square[:, None] + square - 2.0 * unit @ unit.T, 0.0)
    np.fill_diagonal(squared, np.inf)
    nearest = min(_NEIGHBOR, n - 1) - 1
    other = np.argpartition(squared, nearest, axis=1)[:, nearest]
    floor = 1e-12 * max(k, 1)
    distance = np.maximum(squared[np.arange(n), other], floor)
    step = k * (unit - unit[other]) / distance[:, None] / n
    gradient = step.copy()
    np.subtract.at(gradient, other, step)
    return float(0.5 * k * np.log(distance).mean()), gradient


def build(prior: Prior, seed: int, arguments: GanArguments, schedule: Schedule) -> MixtureSampler:
    """Creates the `gan` sampler."""
    proposer = Gan(
        prior.unit_dimension,
        arguments.entropy,
        arguments.training_steps,
        arguments.hidden,
        np.random.default_rng([seed, 1]),
    )
    return acquisition_sampler(
        "gan", prior, seed, arguments, proposer, schedule, arguments.beta, calibrate=False
    )

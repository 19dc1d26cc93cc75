"""`conditional_diffusion`: a diffusion model of p(λ | difficulty), conditioned on large difficulties.

A denoising diffusion model learns the distribution of the parameters given the difficulty c from all
completed simulations. Target difficulties are drawn from the history with probability proportional
to the difficulty, and points from p(λ | c) with classifier-free guidance. Without guidance (scale 1)
and with a uniform history, the points follow p(λ) a(λ), with a the mean difficulty. The published
scale of 5 concentrates them further.

The history is not uniform, because the sampler has proposed its points. A classifier is trained to
distinguish the history from uniform points. Each record is weighted by D / (1 - D) in the training of
the model, with D the probability that the point is *uniform*. This ratio estimates the density ratio
uniform / history. With the opposite labels the weight would be the inverse ratio, and the model would
reinforce its own preferences.

Departures from OGAS as published:

- The hidden layers have 64 units by default, and 1,024 there.
- The context c is the standardized logarithm of the difficulty, clipped to 3 standard deviations, and not the error.
- Targets are drawn in proportion to the difficulty, by default a mean squared error, and not to its root.
- The predicted point is clipped to the cube in each reverse step, where the original draws points outside again.

The density of the draws is unknown: log q is NaN, and the samples have weight 1 in training.

References: online generative active sampling (OGAS), arXiv 2606.09949; classifier-free guidance: Ho
and Salimans, arXiv 2207.12598.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from melissa_gen.sampling.acquisition.difficulty_ensemble import log_difficulty
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.adaptive.mixture import AdaptiveRule, Draws, MixtureSampler
from melissa_gen.sampling.adaptive_share import GenerationRamp, Ramp
from melissa_gen.sampling.arguments import Arguments
from melissa_gen.sampling.base import State, part_of
from melissa_gen.sampling.networks.denoiser import Denoiser
from melissa_gen.sampling.networks.perceptron import Perceptron, Single, train
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["ConditionalDiffusion", "ConditionalDiffusionArguments", "build", "uniform_over_history"]

Array = NDArray[np.float64]

# Smallest number of records to learn from.
_MIN_RECORDS = 2
# Training batches of the classifier, and bound of the density ratio.
_RATIO_STEPS = 150
_RATIO_BOUND = 10.0


class ConditionalDiffusionArguments(Arguments):
    """Arguments of `conditional_diffusion`; the defaults are the published ones, except that of `hidden`."""

    guidance: float = Field(5.0, ge=0.0, le=50.0, description="classifier-free guidance scale")
    steps: int = Field(100, ge=5, le=1000, description="number of reverse steps")
    debias: bool = Field(
        True, description="weight the history by the density ratio uniform / history"
    )
    share_end: float = Field(
        0.7, ge=0.0, le=0.9, description="share of adaptive points after the ramp"
    )
    breakpoint: int = Field(4, ge=1, description="generations until this share is reached")
    training_steps: int = Field(300, ge=1, le=100_000, description="training batches per refit")
    hidden: int = Field(64, ge=8, le=1024, description="width of the network's hidden layers")
    history: int = Field(1000, ge=10, description="number of newest records to learn from")


class ConditionalDiffusion(AdaptiveRule):
    """The adaptive rule of the method `conditional_diffusion`.

    Args:
        dimension: Number of axes k of the unit cube.
        arguments: Arguments of the method.
        rng: Random generator that draws the initial weights of both networks.
    """

    name = "conditional_diffusion"

    def __init__(
        self, dimension: int, arguments: ConditionalDiffusionArguments, rng: np.random.Generator
    ) -> None:
        self._dimension = dimension
        self._arguments = arguments
        self._model = Denoiser(dimension, arguments.steps, rng, arguments.hidden)
        self._ratio = Perceptron([dimension, 32, 32, 1], rng)
        self._targets = np.empty(0)
        self._target_probability = np.empty(0)
        self._loss = 0.0
        self._effective = 0.0

    @property
    def ready(self) -> bool:
        """Whether the model has been trained."""
        return len(self._targets) > 0

    def learn(self, table: EvidenceTable, rng: np.random.Generator) -> None:
        """Trains the model on the debiased history, and stores its difficulties as targets."""
        table = table.usable()
        context = log_difficulty(table.difficulty)
        if len(table) < _MIN_RECORDS or self._dimension == 0 or np.ptp(context) < 1e-9:
            self._targets = self._target_probability = np.empty(0)
            return
        context = np.clip((context - context.mean()) / context.std(), -3.0, 3.0)
        weight = np.ones(len(table))
        if self._arguments.debias:
            weight = uniform_over_history(self._ratio, table.unit, rng)
        steps = self._arguments.training_steps * (1 if self.ready else 2)
        self._loss = self._model.fit(2.0 * table.unit - 1.0, weight, context, steps, rng)
        self._targets = context
        self._target_probability = table.difficulty / table.difficulty.sum()
        self._effective = float(weight.sum() ** 2 / (weight @ weight))

    def propose(self, n: int, rng: np.random.Generator) -> Draws:
        """Draws n target difficulties, and one point (n, k) of the unit cube for each."""
        target = self._targets[rng.choice(len(self._targets), size=n, p=self._target_probability)]
        x = self._model.draw(n, target, self._arguments.guidance, rng)
        return Draws(0.5 * (x + 1.0), np.full(n, -1, dtype=np.int64))

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        return {
            "targets": self._targets.copy(),
            "target_probability": self._target_probability.copy(),
            "numbers": [self._loss, self._effective],
            **{f"model.{k}": v for k, v in self._model.state().items()},
            **{f"ratio.{k}": v for k, v in self._ratio.state().items()},
        }

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self._targets, self._target_probability = (
            np.array(state["targets"]),
            np.array(state["target_probability"]),
        )
        self._loss, self._effective = state["numbers"]
        self._model.restore(part_of(state, "model."))
        self._ratio.restore(part_of(state, "ratio."))

    def diagnostics(self) -> dict[str, float]:
        """Returns the last training loss, and the effective sample size of the debiased history."""
        return {"diffusion_loss": self._loss, "history_ess": self._effective}


def uniform_over_history(network: Perceptron, unit: Array, rng: np.random.Generator) -> Array:
    """Estimates the density ratio uniform / history at the points of the history.

    The classifier `network` is trained in place to distinguish the history (label 0) from as many
    uniform points (label 1). The ratio is D / (1 - D), with D the output of the classifier. It is
    clipped to [1/10, 10] and then normalized.

    Args:
        network: Classifier with k inputs and one output, the logit of D.
        unit: (m, k), the points of the history in the unit cube.
        rng: Random generator.

    Returns:
        (m,), the density ratio, with mean 1.
    """
    history = (2.0 * unit - 1.0).astype(np.float32)
    half = min(256, max(32, len(unit)))
    label = np.concatenate([np.zeros(half), np.ones(half)]).astype(np.float32)[:, None]

    def batch() -> tuple[float, list[Single]]:
        rows = rng.integers(0, len(history), size=half)
        uniform = rng.uniform(-1.0, 1.0, size=(half, unit.shape[1])).astype(np.float32)
        logit, kept = network.forward(np.concatenate([history[rows], uniform]))
        loss = float((np.logaddexp(0.0, logit) - label * logit).mean())
        error = 0.5 * (1.0 + np.tanh(0.5 * logit)) - label
        return loss, network.backward(kept, error / np.float32(2 * half))[0]

    train(network, batch, _RATIO_STEPS, 3e-3)
    logit = network(history)[:, 0].astype(np.float64)
    ratio = np.exp(np.clip(logit, -np.log(_RATIO_BOUND), np.log(_RATIO_BOUND)))
    return np.asarray(ratio / ratio.mean())


def build(
    prior: Prior, seed: int, arguments: ConditionalDiffusionArguments, ramp: Ramp
) -> MixtureSampler:
    """Creates the `conditional_diffusion` sampler; its own ramp replaces the common one."""
    rng = np.random.default_rng([seed, 1])
    rule = ConditionalDiffusion(prior.unit_dimension, arguments, rng)
    schedule = GenerationRamp(min(ramp.max_share, arguments.share_end), arguments.breakpoint)
    return MixtureSampler(prior, seed, rule, schedule, arguments.history)

"""`diffusion_prior`: a learned diffusion of the prior itself, guided towards p a^β.

The score of a prior that is known only through points (correlated inputs, a feasible region) has no
closed form. A small diffusion model learns it. Its reverse steps are guided by the acquisition as in
`diffusion_posterior`, with the Jacobian of the network:

    x̂0 ← x̂0 + (σ²/α) (∂x̂0/∂x_t)ᵀ β ∇ log a(x̂0).

Half of the training weight is on draws of the prior, and half on all simulations proposed so far.
Proposed points are weighted by p/q. Without these weights the model would learn the preferences of
the sampler as the prior, and reinforce them in each generation.

The density and the calibration are those of `diffusion_posterior`.

References: guidance: Chung et al., arXiv 2209.14687; diffusion model: Ho et al., arXiv 2006.11239.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from melissa_gen.sampling.acquisition.base_acquisition import Acquisition
from melissa_gen.sampling.acquisition.difficulty_ensemble import importance_weights
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.adaptive.acquisition_rule import (
    AcquisitionArguments,
    Proposer,
    acquisition_sampler,
)
from melissa_gen.sampling.adaptive.diffusion_posterior import slope_at
from melissa_gen.sampling.adaptive.mixture import MixtureSampler
from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.base import State
from melissa_gen.sampling.networks.denoiser import Denoiser
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["DiffusionPrior", "DiffusionPriorArguments", "build"]

Array = NDArray[np.float64]

_PRIOR_DRAWS = 2048


class DiffusionPriorArguments(AcquisitionArguments):
    """Arguments of `diffusion_prior`."""

    steps: int = Field(50, ge=5, le=1000, description="number of reverse steps")
    training_steps: int = Field(200, ge=1, le=100_000, description="training batches per refit")
    hidden: int = Field(64, ge=8, le=1024, description="width of the network's hidden layers")
    calibrated: bool = Field(
        True, description="adjust the guidance so that the draws are as concentrated as p a^β"
    )


class DiffusionPrior(Proposer):
    """Proposer of the method `diffusion_prior`.

    Args:
        prior: Prior distribution p(λ) of the parameters.
        steps: Number of reverse steps.
        training_steps: Training batches per refit; the first fit takes three times as many.
        hidden: Width of the network's hidden layers.
        rng: Random generator that draws the initial weights.
    """

    exact = False

    def __init__(
        self,
        prior: Prior,
        steps: int,
        training_steps: int,
        hidden: int,
        rng: np.random.Generator,
    ) -> None:
        self._prior = prior
        self._model = Denoiser(prior.unit_dimension, steps, rng, hidden)
        self._training_steps = training_steps
        self._fits = 0
        self._loss = 0.0

    def fit(
        self, table: EvidenceTable, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> None:
        """Trains the diffusion model of the prior; the acquisition is not used."""
        unit = self._prior.sample_unit(_PRIOR_DRAWS, rng)
        weight = np.ones(len(unit))
        if len(table) > 0:
            unit = np.concatenate([unit, table.unit])
            proposed = importance_weights(table.log_ratio)
            weight = np.concatenate([weight / len(weight), proposed / len(proposed)])
        steps = self._training_steps * (1 if self._fits else 3)
        self._loss = self._model.fit(2.0 * unit - 1.0, weight, None, steps, rng)
        self._fits += 1

    def draw(
        self, n: int, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> Array:
        """Draws n points (n, k) of the unit cube."""
        diffusion = self._model.diffusion
        x = rng.standard_normal((n, self._prior.unit_dimension))
        for level in range(diffusion.steps, 0, -1):
            mean, kept = self._model.denoise(x, level)
            mean = np.clip(mean, -1.0, 1.0)
            alpha = diffusion.alpha(level)
            _, slope = slope_at(mean, acquisition, beta)
            pulled = self._model.pull_back(kept, level, slope)
            x0 = np.clip(mean + (1.0 - alpha**2) / alpha * pulled, -1.0, 1.0)
            x = diffusion.step(x, x0, level, rng)
        return np.asarray(0.5 * (x + 1.0))

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        return {"fits": [self._fits, self._loss], **self._model.state()}

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self._fits, self._loss = state["fits"]
        self._model.restore(state)

    def diagnostics(self) -> dict[str, float]:
        """Returns the last training loss of the diffusion model."""
        return {"diffusion_loss": self._loss}


def build(
    prior: Prior, seed: int, arguments: DiffusionPriorArguments, schedule: Schedule
) -> MixtureSampler:
    """Creates the `diffusion_prior` sampler."""
    proposer = DiffusionPrior(
        prior,
        arguments.steps,
        arguments.training_steps,
        arguments.hidden,
        np.random.default_rng([seed, 1]),
    )
    return acquisition_sampler(
        "diffusion_prior",
        prior,
        seed,
        arguments,
        proposer,
        schedule,
        arguments.beta,
        arguments.calibrated,
    )

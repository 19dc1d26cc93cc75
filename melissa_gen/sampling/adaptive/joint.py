"""`joint`: a diffusion model of the joint distribution of parameters and difficulty.

The model can sample any subset of the variables given the others. Its network is a transformer with
one token per variable. In each training batch, a random subset of the variables is noisy and the
others are known. The network therefore learns every conditional of p(λ, c): λ given a difficulty,
difficulty given λ, or some parameters given a difficulty and the other parameters. The noise is
variance exploding, from σ = 15 down to 1e-4.

The sampler draws a difficulty c from the history with probability proportional to c^β p/q. It then
draws λ given c and given the parameters that `given` fixes, for example "difficult, with this
viscosity". Without fixed parameters the draws follow p(λ) E[c^β | λ]. The records are also weighted
by p/q in training.

Departures from Simformer: its joint distribution is that of the parameters and the data of a simulation, and gives
posteriors. Here the difficulty, one number, takes the place of the data. Summary statistics of the solution are not
part of the model, because the evidence does not contain any. All variables attend to each other, without a mask of
their dependencies.

The density of the draws is unknown: log q is NaN, and the samples have weight 1 in training.

Reference: Gloeckler et al., "All-in-one simulation-based inference" (Simformer), arXiv 2404.09636.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from melissa_gen.errors import StudyError, nearest
from melissa_gen.sampling.acquisition.difficulty_ensemble import importance_weights, log_difficulty
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.adaptive.mixture import AdaptiveRule, Draws, MixtureSampler
from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.arguments import Arguments
from melissa_gen.sampling.base import State
from melissa_gen.sampling.prior.joint_prior import Prior

if TYPE_CHECKING:
    from melissa_gen.sampling.networks.joint_network import JointNetwork

__all__ = ["Joint", "JointArguments", "build", "draw_masks"]

Array = NDArray[np.float64]

_SIGMA_MAX, _SIGMA_MIN = 15.0, 1e-4
# Distribution of the noise levels in training, and exponent of their spacing in sampling: arXiv 2206.00364, table 1.
_LEVEL_MEAN, _LEVEL_SPREAD, _RHO = -0.6, 1.4, 7.0
# Half the width of the box [-√3, √3], on which a uniform variable has variance 1.
_WIDTH = float(np.sqrt(3.0))
# Largest number of tokens in a training batch.
_TOKENS = 768


class JointArguments(Arguments):
    """Arguments of `joint`."""

    beta: float = Field(
        1.5, ge=0.0, le=20.0, description="exponent β with which target difficulties are drawn"
    )
    given: dict[str, float] = Field({}, description="fixed values of parameters, by name")
    steps: int = Field(40, ge=5, le=1000, description="number of reverse steps")
    training_steps: int = Field(100, ge=1, le=100_000, description="training batches per refit")
    width: int = Field(32, ge=8, le=512, multiple_of=2, description="embedding width of a token")
    layers: int = Field(2, ge=1, le=16, description="number of transformer layers")
    history: int = Field(1000, ge=10, description="number of newest records to learn from")


class Joint(AdaptiveRule):
    """The adaptive rule of the method `joint`.

    Args:
        dimension: Number of axes k of the unit cube.
        seed: Seed of the network's initial weights.
        arguments: Arguments of the method.
        pinned: Fixed coordinates in the unit cube, by axis.
    """

    name = "joint"

    def __init__(
        self, dimension: int, seed: int, arguments: JointArguments, pinned: Mapping[int, float]
    ) -> None:
        self._dimension = dimension
        self._arguments = arguments
        self._pinned = dict(pinned)
        self._network = _build_network(dimension + 1, seed, arguments)
        self._targets = np.empty(0)
        self._target_probability = np.empty(0)
        self._loss = 0.0

    @property
    def ready(self) -> bool:
        """Whether the model has been trained."""
        return len(self._targets) > 0

    def learn(self, table: EvidenceTable, rng: np.random.Generator) -> None:
        """Trains the model on the whole history, and stores its difficulties as targets."""
        table = table.usable()
        target = log_difficulty(table.difficulty)
        if len(table) < 2 or self._dimension == 0 or np.ptp(target) < 1e-9:
            self._targets = self._target_probability = np.empty(0)
            return
        weight = importance_weights(table.log_ratio)
        power = weight * np.exp(self._arguments.beta * (target - target.max()))
        steps = self._arguments.training_steps * (1 if self.ready else 3)
        self._targets = np.clip((target - target.mean()) / target.std(), -3.0, 3.0)
        self._target_probability = power / power.sum()
        values = np.column_stack([_WIDTH * (2.0 * table.unit - 1.0), self._targets])
        self._loss = self._train(values, weight / weight.sum(), steps, rng)

    def propose(self, n: int, rng: np.random.Generator) -> Draws:
        """Draws n target difficulties, and one point (n, k) of the unit cube for each."""
        known = np.zeros(self._dimension + 1, dtype=bool)
        values = np.zeros((n, self._dimension + 1))
        known[-1] = True
        values[:, -1] = self._targets[
            rng.choice(len(self._targets), size=n, p=self._target_probability)
        ]
        for axis, coordinate in self._pinned.items():
            known[axis] = True
            values[:, axis] = _WIDTH * (2.0 * coordinate - 1.0)
        drawn = self.conditional(values, known, rng)[:, :-1]
        unit = np.clip(0.5 * (drawn / _WIDTH + 1.0), 0.0, 1.0)
        return Draws(unit, np.full(n, -1, dtype=np.int64))

    def conditional(
        self, values: Array, known: NDArray[np.bool_], rng: np.random.Generator
    ) -> Array:
        """Draws the unknown variables given the known ones.

        Args:
            values: (n, k + 1), the axes scaled to [-√3, √3] and the standardized log difficulty.
            known: (k + 1,), whether each variable is given. The values of the others are ignored.
            rng: Random generator.

        Returns:
            (n, k + 1), all variables, with the given values unchanged.
        """
        import torch

        n, tokens = values.shape
        ends = _SIGMA_MAX ** (1.0 / _RHO), _SIGMA_MIN ** (1.0 / _RHO)
        levels = np.linspace(*ends, self._arguments.steps) ** _RHO
        x = np.where(known, values, _SIGMA_MAX * rng.standard_normal((n, tokens)))
        mask = torch.from_numpy(np.tile(known.astype(np.float32), (n, 1)))
        for step, sigma in enumerate(levels):
            level = torch.full((n, 1), float(sigma))
            with torch.no_grad():
                clean = self._network(torch.from_numpy(x).float(), mask, level).numpy()
            clean = clean.astype(np.float64)
            clean[:, :-1] = np.clip(clean[:, :-1], -_WIDTH, _WIDTH)
            if step + 1 < len(levels):
                # The exact distribution of x at the next level, given x at this level and the clean value.
                kept = (levels[step + 1] / sigma) ** 2
                noise = levels[step + 1] * np.sqrt(1.0 - kept) * rng.standard_normal(x.shape)
                clean = clean + kept * (x - clean) + noise
            x = np.where(known, values, clean)
        return x

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        weights = {f"w.{k}": v.numpy().copy() for k, v in self._network.state_dict().items()}
        return {
            "targets": self._targets.copy(),
            "target_probability": self._target_probability.copy(),
            "loss": self._loss,
            **weights,
        }

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        import torch

        self._targets, self._target_probability = (
            np.array(state["targets"]),
            np.array(state["target_probability"]),
        )
        self._loss = state["loss"]
        names = self._network.state_dict()
        weights = {name: torch.from_numpy(np.array(state[f"w.{name}"])) for name in names}
        self._network.load_state_dict(weights)

    def diagnostics(self) -> dict[str, float]:
        """Returns the last training loss; it is 1 for a network that predicts the mean of each variable."""
        return {"joint_loss": self._loss}

    def _train(
        self, values: Array, probability: Array, steps: int, rng: np.random.Generator
    ) -> float:
        import torch

        tokens = values.shape[1]
        batch = max(8, min(256, _TOKENS // tokens))
        optimizer = torch.optim.Adam(self._network.parameters(), lr=3e-3)
        losses = []
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 3e-3 * 0.5 * (1.0 + np.cos(np.pi * step / steps))
            clean = values[rng.choice(len(values), size=batch, p=probability)]
            known = draw_masks(batch, tokens, rng)
            # Levels near the scale of the variables contribute most to the quality of the draws.
            sigma = np.exp(rng.normal(_LEVEL_MEAN, _LEVEL_SPREAD, size=(batch, 1)))
            sigma = np.clip(sigma, _SIGMA_MIN, _SIGMA_MAX)
            noisy = clean + sigma * rng.standard_normal(clean.shape)
            x = np.where(known, clean, noisy)
            x, clean, mask, level = (
                torch.from_numpy(a.astype(np.float32)) for a in (x, clean, known, sigma)
            )
            # The error is relative to the error expected at this level: σ for low noise, 1 for high noise.
            error = (self._network(x, mask, level) - clean) * (1.0 + level**2).sqrt() / level
            loss = ((1.0 - mask) * error**2).sum() / (1.0 - mask).sum()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
            optimizer.step()
            losses.append(float(loss.detach()))
        return float(np.mean(losses[-max(1, steps // 4) :]))


def draw_masks(n: int, tokens: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draws random condition masks, each of one of five kinds with equal probability.

    The kinds are: no variable is known (the joint distribution); only the difficulty is known (the
    last token); all except the difficulty are known; each is known with probability 0.3; each is
    known with probability 0.7. At least one variable of each row is unknown.

    Args:
        n: Number of masks.
        tokens: Number of variables.
        rng: Random generator.

    Returns:
        (n, tokens), whether each variable is known.
    """
    kind = rng.integers(0, 5, size=(n, 1))
    last = np.arange(tokens) == tokens - 1
    known = np.select(
        [kind == 0, kind == 1, kind == 2],
        [np.zeros((n, tokens), bool), np.tile(last, (n, 1)), np.tile(~last, (n, 1))],
        rng.random((n, tokens)) < np.where(kind == 3, 0.3, 0.7),
    )
    full = known.all(axis=1)
    known[full, rng.integers(0, tokens, size=int(full.sum()))] = False
    return known


def _build_network(tokens: int, seed: int, arguments: JointArguments) -> "JointNetwork":
    """Creates the network with seeded initial weights; the global random state is not changed."""
    import torch

    from melissa_gen.sampling.networks.joint_network import JointNetwork

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return JointNetwork(tokens, arguments.width, arguments.layers)


def build(prior: Prior, seed: int, arguments: JointArguments, schedule: Schedule) -> MixtureSampler:
    """Creates the `joint` sampler.

    Raises:
        StudyError: `given` names a parameter that is unknown or does not vary, or has a value
            outside the support of the parameter.
    """
    pinned = {}
    free = prior.free_names
    for name, value in arguments.given.items():
        key = f"sampler.arguments.given.{name}"
        if name not in free:
            msg = f"{key} is not a parameter that varies; legal are {', '.join(free)}{nearest(name, free)}."
            raise StudyError(msg)
        distribution = prior.distributions[name]
        if not distribution.contains(np.array(value)):
            msg = f"{key} is {value:g}, outside the bounds of the parameter."
            raise StudyError(msg)
        pinned[free.index(name)] = float(distribution.cdf(np.array(value)))
    rule = Joint(prior.unit_dimension, seed, arguments, pinned)
    return MixtureSampler(prior, seed, rule, schedule, arguments.history)

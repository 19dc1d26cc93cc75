"""`joint`: one model of parameters and difficulty together, to sample any of them given any others.

The Simformer (Gloeckler et al., arXiv 2404.09636): a diffusion model whose network is a transformer
with a token per variable. Each training batch hides a random subset of the variables in noise, and the
rest is known, so that the same network learns every conditional of p(λ, c): λ given a difficulty,
difficulty given λ, or some parameters given a difficulty and the other parameters. Noise is of the
variance-exploding kind, from σ = 15 down to 1e-4.

As a sampler it draws a difficulty c from the history with probability proportional to c^β p/q, and
then λ given c, and given those parameters that `given` pins: "hard, and with this viscosity". Without
pins that is p(λ) E[c^β | λ]. Records weigh p/q in the training too. Summary statistics of the
solution could be further tokens; the evidence that samplers get has none.

Its density is not known: log q is NaN, and its points count with weight 1 in training.
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
# Which levels are trained and stepped through: arXiv 2206.00364, table 1.
_LEVEL_MEAN, _LEVEL_SPREAD, _RHO = -0.6, 1.4, 7.0
_WIDTH = float(np.sqrt(3.0))  # of the box [-√3, √3], on which a uniform has variance 1
_TOKENS = 768  # of a training batch


class JointArguments(Arguments):
    """Arguments of `joint`."""

    beta: float = Field(1.5, ge=0.0, le=20.0, description="exponent β of the difficulties drawn")
    given: dict[str, float] = Field({}, description="parameters pinned to a value, by name")
    steps: int = Field(40, ge=5, le=1000, description="reverse steps")
    training_steps: int = Field(100, ge=1, le=100_000, description="batches of a refit")
    width: int = Field(32, ge=8, le=512, multiple_of=2, description="width of a token")
    layers: int = Field(2, ge=1, le=16, description="transformer layers")
    history: int = Field(1000, ge=10, description="newest records kept to learn from")


class Joint(AdaptiveRule):
    """The `Rule` of `joint`.

    Args:
        dimension: axes k of the unit cube.
        seed: of the network's first weights.
        arguments: see there.
        pinned: axis of the unit cube → its coordinate there.
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
        self._chance = np.empty(0)
        self._loss = 0.0

    @property
    def ready(self) -> bool:
        """Whether it has been trained."""
        return len(self._targets) > 0

    def learn(self, table: EvidenceTable, rng: np.random.Generator) -> None:
        """Trains on the whole history, and keeps its difficulties as targets."""
        table = table.usable()
        target = log_difficulty(table.difficulty)
        if len(table) < 2 or self._dimension == 0 or np.ptp(target) < 1e-9:
            self._targets = self._chance = np.empty(0)
            return
        weight = importance_weights(table.log_ratio)
        power = weight * np.exp(self._arguments.beta * (target - target.max()))
        steps = self._arguments.training_steps * (1 if self.ready else 3)
        self._targets = np.clip((target - target.mean()) / target.std(), -3.0, 3.0)
        self._chance = power / power.sum()
        values = np.column_stack([_WIDTH * (2.0 * table.unit - 1.0), self._targets])
        self._loss = self._train(values, weight / weight.sum(), steps, rng)

    def propose(self, n: int, rng: np.random.Generator) -> Draws:
        """Draws difficulties, and a point for each."""
        known = np.zeros(self._dimension + 1, dtype=bool)
        values = np.zeros((n, self._dimension + 1))
        known[-1] = True
        values[:, -1] = self._targets[rng.choice(len(self._targets), size=n, p=self._chance)]
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
            values: (n, k + 1), the axes on [-√3, √3] and the standardized log difficulty.
            known: (k + 1,), which of them are given; the others' values do not matter.
            rng: the generator.

        Returns:
            (n, k + 1), the given values among them.
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
                # The exact law of x at the next level, given x here and the clean value.
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
            "chance": self._chance.copy(),
            "loss": self._loss,
            **weights,
        }

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        import torch

        self._targets, self._chance = np.array(state["targets"]), np.array(state["chance"])
        self._loss = state["loss"]
        names = self._network.state_dict()
        weights = {name: torch.from_numpy(np.array(state[f"w.{name}"])) for name in names}
        self._network.load_state_dict(weights)

    def diagnostics(self) -> dict[str, float]:
        """The last training loss: 1 for a network that knows nothing but each variable's scale."""
        return {"joint_loss": self._loss}

    def _train(self, values: Array, chance: Array, steps: int, rng: np.random.Generator) -> float:
        import torch

        tokens = values.shape[1]
        batch = max(8, min(256, _TOKENS // tokens))
        optimizer = torch.optim.Adam(self._network.parameters(), lr=3e-3)
        losses = []
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 3e-3 * 0.5 * (1.0 + np.cos(np.pi * step / steps))
            clean = values[rng.choice(len(values), size=batch, p=chance)]
            known = draw_masks(batch, tokens, rng)
            # Most of what there is to learn lies at levels near the variables' own scale.
            sigma = np.exp(rng.normal(_LEVEL_MEAN, _LEVEL_SPREAD, size=(batch, 1)))
            sigma = np.clip(sigma, _SIGMA_MIN, _SIGMA_MAX)
            noisy = clean + sigma * rng.standard_normal(clean.shape)
            x = np.where(known, clean, noisy)
            x, clean, mask, level = (
                torch.from_numpy(a.astype(np.float32)) for a in (x, clean, known, sigma)
            )
            # In units of what is possible at this level: σ for little noise, 1 for much.
            error = (self._network(x, mask, level) - clean) * (1.0 + level**2).sqrt() / level
            loss = ((1.0 - mask) * error**2).sum() / (1.0 - mask).sum()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
            optimizer.step()
            losses.append(float(loss.detach()))
        return float(np.mean(losses[-max(1, steps // 4) :]))


def draw_masks(n: int, tokens: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which variables are known, (n, tokens), in five kinds of equal probability.

    None (the joint law); the difficulty alone, the last token; all but the difficulty; each with
    probability 0.3; each with 0.7. At least one variable of a row is unknown.
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
    """The network, with first weights of its own seed and the global generator as it was."""
    import torch

    from melissa_gen.sampling.networks.joint_network import JointNetwork

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return JointNetwork(tokens, arguments.width, arguments.layers)


def build(prior: Prior, seed: int, arguments: JointArguments, schedule: Schedule) -> MixtureSampler:
    """The `joint` sampler.

    Raises:
        StudyError: `given` names no parameter that varies, or a value outside its support.
    """
    pinned = {}
    free = prior.free_names
    for name, value in arguments.given.items():
        key = f"sampler.arguments.given.{name}"
        if name not in free:
            msg = f"{key} is no parameter that varies, those are {', '.join(free)}{nearest(name, free)}."
            raise StudyError(msg)
        distribution = prior.distributions[name]
        if not distribution.contains(np.array(value)):
            msg = f"{key} is {value:g}, outside the bounds of the parameter."
            raise StudyError(msg)
        pinned[free.index(name)] = float(distribution.cdf(np.array(value)))
    rule = Joint(prior.unit_dimension, seed, arguments, pinned)
    return MixtureSampler(prior, seed, rule, schedule, arguments.history)

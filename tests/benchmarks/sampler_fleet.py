"""Trains many surrogates in step, each with a sampler of its own: the online loop in batch, without a launcher.

Networks of one shape are one stack of weights, so that a batched product trains all of them at once, several times
faster than one after the other. All else is what ships: samplers are used through their contract, difficulties come
from the `DifficultyTracker`, fed as the server feeds it (each sample's loss at its first draw, before that step), and
a simulation weighs (p/q)^γ in the loss. With `relative`, loss, difficulty and novelty are those of `training.metric:
relative`: an error is divided by the magnitude of its field.

In a round each sampler learns from the evidence so far and suggests, the points are solved, and the networks take so
many steps on all that they have, drawn evenly with repetition. Slots of one seed share the network's first weights and
the random numbers that batches are drawn with.
"""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from sampler_problems import Fields, Problem

from melissa_gen.sampling import PRIOR, DifficultyTracker, Evidence, Prior, Probe, Sampler
from melissa_gen.surrogates import Surrogate, SurrogateProbe
from melissa_gen.surrogates.losses import LEAST_SHARE

Array = NDArray[np.float64]

RATE, LAST_RATE = 1e-3, 1e-4
"""Of Adam, falling geometrically over the run."""


@dataclass
class Slot:
    """One surrogate and its sampler.

    Args:
        sampler: chooses its points.
        seed: of the network's first weights and of the batches.
        exponent: γ of the importance weights.
        tracker: turns first-pass losses into difficulties.
        run_time: of the simulation of each of the points (n, d); None: unknown.
    """

    sampler: Sampler
    seed: int
    exponent: float
    tracker: DifficultyTracker = field(default_factory=DifficultyTracker)
    run_time: Callable[[Array], Array] | None = None
    points: list[Array] = field(default_factory=list)
    adaptive: list[bool] = field(default_factory=list)
    log_density: list[float] = field(default_factory=list)
    generation: list[int] = field(default_factory=list)
    sampler_seconds: float = 0.0
    heard: int = 0


class Network:
    """A stack of perceptrons with SiLU, one per slot."""

    def __init__(self, widths: Sequence[int], seeds: Sequence[int]) -> None:
        self.weights: list[torch.Tensor] = []
        self.biases: list[torch.Tensor] = []
        for layer, (fan_in, fan_out) in enumerate(pairwise(widths)):
            bound = 1.0 / math.sqrt(fan_in)
            w, b = torch.empty(len(seeds), fan_in, fan_out), torch.empty(len(seeds), 1, fan_out)
            for k, seed in enumerate(seeds):
                rng = np.random.default_rng([seed, 10 + layer])
                w[k] = torch.from_numpy(rng.uniform(-bound, bound, (fan_in, fan_out)))
                b[k] = torch.from_numpy(rng.uniform(-bound, bound, (1, fan_out)))
            self.weights.append(w.requires_grad_())
            self.biases.append(b.requires_grad_())

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps (slots, b, n_inputs) to (slots, b, size)."""
        return torch.baddbmm(self.biases[-1], self.hidden(inputs), self.weights[-1])

    def hidden(self, inputs: torch.Tensor) -> torch.Tensor:
        """The last hidden layer, (slots, b, width)."""
        for w, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            inputs = torch.nn.functional.silu(torch.baddbmm(b, inputs, w))
        return inputs

    def parameters(self) -> list[torch.Tensor]:
        return [*self.weights, *self.biases]

    def slot(self, k: int) -> "Network":
        """The network of one slot, a view."""
        one = Network.__new__(Network)
        one.weights = [w[k : k + 1].detach() for w in self.weights]
        one.biases = [b[k : k + 1].detach() for b in self.biases]
        return one


class CubeProbe:
    """A probe of a surrogate whose inputs are those of the unit cube, asked in physical units.

    Args:
        probe: asked in the cube.
        prior: maps to it.
    """

    def __init__(self, probe: Probe, prior: Prior) -> None:
        self._probe, self._prior = probe, prior
        self.names, self.costly = probe.names, probe.costly

    def features(self, points: Array) -> Array:
        return self._probe.features(self._prior.to_unit(points))

    def features_and_pullback(self, points: Array) -> tuple[Array, Callable[[Array], Array]]:
        unit = self._prior.to_unit(points)
        found, back = self._probe.features_and_pullback(unit)
        # A discrete parameter does not change with its axis of the cube: its slope is 0, and so is the gradient.
        each = self._prior.slope(unit)
        factor = np.divide(1.0, each, out=np.zeros_like(each), where=each != 0.0)
        return found, lambda slope: back(slope) * factor

    def with_seen(self, points: Array) -> "CubeProbe":
        return CubeProbe(self._probe.with_seen(self._prior.to_unit(points)), self._prior)


class Fleet:
    """Slots that train in step on one problem.

    Args:
        problem: the problem.
        slots: samplers and seeds.
        scale: mean and standard deviation of the field, by which targets are standardized.
        steps: Adam steps after each round, in place of the problem's.
        relative: Whether losses are relative to the magnitude of each field.
    """

    def __init__(
        self,
        problem: Problem,
        slots: Sequence[Slot],
        scale: tuple[float, float],
        steps: int | None = None,
        relative: bool = False,
    ) -> None:
        self.problem, self.slots = problem, list(slots)
        self.prior = problem.prior
        self.steps = problem.steps if steps is None else steps
        self.mean, self.std = scale
        self.relative = relative
        count, k = problem.simulations * problem.times, len(self.slots)
        n_inputs = self.prior.unit_dimension + 1
        self.network = Network(
            (n_inputs, *problem.hidden, problem.size), [slot.seed for slot in self.slots]
        )
        self._inputs = torch.zeros(k * count, n_inputs)
        self._targets = torch.zeros(k * count, problem.size)
        self._weights = torch.ones(k * count)
        # Factor of the squared error of each sample in its loss.
        self._factors = torch.ones(k * count)
        self._seen = np.zeros((k, count), dtype=bool)
        self._offset = (np.arange(k) * count)[:, None]
        self._count = count
        self._template = Surrogate(
            dict.fromkeys(self.prior.free_names, (0.0, 1.0)),
            (0.0, 1.0),
            {"field": (problem.size,)},
            arguments={"hidden": problem.hidden, "activation": "silu"},
        )
        if relative:
            self._template.set_output_statistics({"field": self.mean}, {"field": self.std})
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr=RATE, fused=True)
        self._batches = 0
        self._solved = 0
        self.train_seconds = 0.0

    def run(self, after_round: Callable[["Fleet"], None] | None = None) -> None:
        """Spends the budget."""
        for _ in range(self.problem.rounds):
            self._simulate()
            began = time.process_time()
            self._train()
            self.train_seconds += time.process_time() - began
            if after_round is not None:
                after_round(self)

    def inputs(self, unit: Array) -> torch.Tensor:
        """Network inputs of whole simulations: (n, k) to (n times, k + 1)."""
        n, times = len(unit), self.problem.times
        clock = np.tile(np.linspace(0.0, 1.0, times), n)[:, None]
        both = np.concatenate([np.repeat(unit, times, axis=0), clock], axis=1)
        return torch.from_numpy((2.0 * both - 1.0).astype(np.float32))

    def errors(self, points: Array, fields: Fields) -> Array:
        """Root mean square error of each simulation in standard deviations of the field: (slots, n)."""
        return np.stack([self.slot_errors(k, points, fields) for k in range(len(self.slots))])

    def slot_errors(self, k: int, points: Array, fields: Fields, times: int | None = None) -> Array:
        """The same of one slot: (n,); at most at so many times, evenly spaced."""
        unit = self.prior.to_unit(points)
        count = self.problem.times
        at = np.linspace(0, count - 1, times or count).round().astype(int)
        network, found = self.network.slot(k), np.empty(len(points))
        for rows in np.array_split(np.arange(len(points)), len(points) // 512 + 1):
            target = torch.from_numpy((fields[rows][:, at] - self.mean) / self.std)
            inputs = self.inputs(unit[rows]).view(len(rows), count, -1)[:, at]
            with torch.no_grad():
                output = network(inputs.reshape(1, -1, inputs.shape[-1]))[0].view_as(target)
                square = (output - target).square().mean(dim=(1, 2))
            found[rows] = square.sqrt().double().numpy()
        return found

    def probe(self, k: int) -> CubeProbe:
        """Returns the probe that a server would give to the sampler of the slot: a copy of its surrogate."""
        copied = copy.deepcopy(self._template)
        linear = [layer for layer in copied.modules() if isinstance(layer, torch.nn.Linear)]
        network = self.network.slot(k)
        with torch.no_grad():
            for layer, w, b in zip(linear, network.weights, network.biases, strict=True):
                layer.weight.copy_(w[0].T)
                layer.bias.copy_(b[0, 0])
        return CubeProbe(SurrogateProbe([copied], relative=self.relative), self.prior)

    def _simulate(self) -> None:
        """Updates every sampler, takes its suggestions, and solves all points at once."""
        n = self.problem.per_round
        blocks = []
        for k, slot in enumerate(self.slots):
            began = time.thread_time()
            if self._solved and slot.sampler.uses_surrogate:
                slot.sampler.observe(self.probe(k))
            slot.sampler.ingest(_evidence(slot))
            slot.sampler.update()
            proposals = slot.sampler.suggest(n)
            slot.sampler_seconds += time.thread_time() - began
            base = self.prior.log_density(proposals.points)
            known = np.isfinite(proposals.log_density)
            ratio = np.where(known, base - proposals.log_density, 0.0)
            first = self._offset[k, 0] + self._solved * self.problem.times
            rows = slice(first, first + n * self.problem.times)
            weight = np.repeat(np.exp(slot.exponent * ratio), self.problem.times)
            self._weights[rows] = torch.from_numpy(weight.astype(np.float32))
            self._inputs[rows] = self.inputs(self.prior.to_unit(proposals.points))
            slot.points.extend(proposals.points)
            slot.adaptive.extend(name != PRIOR for name in proposals.method)
            slot.log_density.extend(proposals.log_density.tolist())
            slot.generation.extend([proposals.generation] * n)
            blocks.append(proposals.points)
        fields = (self.problem.solve(np.concatenate(blocks)) - self.mean) / self.std
        for k, block in enumerate(np.split(fields, len(self.slots))):
            first = self._offset[k, 0] + self._solved * self.problem.times
            flat = torch.from_numpy(block.reshape(-1, self.problem.size))
            self._targets[first : first + len(flat)] = flat
            if self.relative:
                self._factors[first : first + len(flat)] = self._of_magnitude(flat)
        self._solved += n
        self._rng = [np.random.default_rng([slot.seed, self._solved]) for slot in self.slots]

    def _of_magnitude(self, targets: torch.Tensor) -> torch.Tensor:
        """Returns what turns squared errors of standardized fields (n, size) into relative ones: (n,)."""
        usual = self.mean**2 + self.std**2
        square = (targets * self.std + self.mean).square().mean(dim=1)
        return self.std**2 / square.clamp(min=LEAST_SHARE**2 * usual)

    def _train(self) -> None:
        size, stored = self.problem.batch, self._solved * self.problem.times
        draws = np.stack([rng.integers(stored, size=(self.steps, size)) for rng in self._rng], 1)
        total = self.steps * self.problem.rounds
        for step in range(self.steps):
            index = draws[step]
            flat = torch.from_numpy((index + self._offset).ravel())
            inputs = self._inputs.index_select(0, flat).view(*index.shape, -1)
            targets = self._targets.index_select(0, flat).view(*index.shape, -1)
            weights = self._weights.index_select(0, flat).view(*index.shape)
            losses = (self.network(inputs) - targets).square().mean(dim=2)
            losses = losses * self._factors.index_select(0, flat).view(*index.shape)
            rate = RATE * (LAST_RATE / RATE) ** (self._batches / total)
            self._optimizer.param_groups[0]["lr"] = rate
            self._optimizer.zero_grad(set_to_none=True)
            (losses * weights).mean(dim=1).sum().backward()
            self._optimizer.step()
            self._batches += 1
            self._score(index, losses.detach().numpy())

    def _score(self, index: NDArray[np.int64], losses: NDArray[np.float32]) -> None:
        """Adds the losses of samples that are drawn for the first time to the trackers."""
        new = ~np.take_along_axis(self._seen, index, axis=1)
        for k in np.flatnonzero(new.any(axis=1)):
            loss = losses[k].astype(np.float64)
            excess = np.maximum((loss - loss.mean()) / (float(loss.std()) or 1.0), 0.0)
            rows, first = np.unique(index[k][new[k]], return_index=True)
            slot = self.slots[k]
            began = time.thread_time()
            slot.tracker.observe(
                rows // self.problem.times, loss[new[k]][first], excess[new[k]][first]
            )
            slot.sampler_seconds += time.thread_time() - began
            self._seen[k, rows] = True


def _evidence(slot: Slot) -> list[Evidence]:
    return [
        Evidence(
            simulation=n,
            parameters=slot.points[n],
            difficulty=slot.tracker.difficulty(n),
            samples=max(slot.tracker.samples(n), 1),
            log_density=slot.log_density[n],
            generation=slot.generation[n],
            seconds=float(slot.run_time(slot.points[n][None])[0]) if slot.run_time else math.nan,
        )
        for n in slot.tracker.take_changed()
    ]

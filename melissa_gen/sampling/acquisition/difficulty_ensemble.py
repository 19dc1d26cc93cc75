"""An acquisition learned by an ensemble of small networks that predict log difficulty from λ.

The acquisition is a(λ) = exp(μ(λ) + κ σ(λ)), with μ and σ the mean and the standard deviation of the
members' predictions. The weights of all members are stacked as (members, in, out) and trained
together. The implementation uses numpy in single precision with explicit derivatives: the networks are
so small that the overhead of a framework would dominate their cost, and the global random state of the
training is not changed.
"""

from math import cos, pi

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.acquisition.base_acquisition import Acquisition
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.base import State

__all__ = ["DifficultyEnsemble", "importance_weights", "log_difficulty", "recency_weights"]

Array = NDArray[np.float64]
Single = NDArray[np.float32]

_ADAM_MEAN, _ADAM_SQUARE = 0.9, 0.99
_NAMES = ("w1", "b1", "w2", "b2", "w3", "b3")


def log_difficulty(difficulty: Array) -> Array:
    """Returns the logarithm (n,) of difficulties (n,), bounded from below.

    The bound is a thousandth of the median of the positive difficulties. A difficulty of 0 is common (a
    loss below the mean of its batch), and its logarithm must not dominate the fit. If no difficulty
    is positive, the result is 0.
    """
    positive = difficulty[difficulty > 0.0]
    if positive.size == 0:
        return np.zeros_like(difficulty)
    return np.asarray(np.log(np.maximum(difficulty, 1e-3 * np.median(positive))))


def importance_weights(log_ratio: Array, bound: float = 10.0) -> Array:
    """Returns p/q (n,) from log p/q (n,), clipped to [1 / bound, bound] and then normalized to mean 1."""
    weight = np.exp(np.clip(log_ratio, -np.log(bound), np.log(bound)))
    return np.asarray(weight / weight.mean())


def recency_weights(n: int, half_life: float) -> Array:
    """Returns weights (n,) of records, oldest first: 1 for the newest, halved every `half_life` records."""
    return np.asarray(0.5 ** (np.arange(n - 1, -1, -1) / half_life))


class DifficultyEnsemble(Acquisition):
    """Acquisition by an ensemble of networks with two hidden tanh layers.

    Failed simulations have no difficulty and are ignored. With fewer than two records, or if all
    difficulties are equal, log a is 0 everywhere.

    Args:
        dimension: Number of axes k of the unit cube.
        members: Number of networks.
        kappa: Weight κ of the standard deviation.
        half_life: Number of records after which the weight of a record is halved.
        hidden: Width of both hidden layers.
        steps: Full-batch Adam steps of a refit; the first fit takes three times as many.
        rate: Largest learning rate; it follows a cosine schedule to 0.
        decay: Decoupled weight decay.
    """

    def __init__(
        self,
        dimension: int,
        members: int = 4,
        kappa: float = 0.5,
        half_life: float = 200.0,
        hidden: int = 32,
        steps: int = 100,
        rate: float = 0.02,
        decay: float = 0.02,
    ) -> None:
        self._dimension = dimension
        self._members = members
        self._kappa = kappa
        self._half_life = half_life
        self._hidden = hidden
        self._steps = steps
        self._rate = rate
        self._decay = decay
        self._weights: dict[str, Single] = {}
        self._center = 0.0
        self._scale = 0.0
        self._loss = 0.0

    @property
    def flat(self) -> bool:
        """Whether log a is 0 everywhere."""
        return self._scale == 0.0

    def fit(self, table: EvidenceTable, rng: np.random.Generator) -> None:
        """Fits the networks to the difficulties of the table, starting from the last fit.

        Records are weighted by recency and by p/q, so that densely sampled regions do not dominate
        the fit. Each member also weights each record by an exponential draw (Bayesian bootstrap).
        The members therefore differ where there are few records.
        """
        table = table.usable()
        if len(table) < 2 or self._dimension == 0:
            self._scale = 0.0
            return
        target = log_difficulty(table.difficulty)
        weight = recency_weights(len(table), self._half_life) * importance_weights(table.log_ratio)
        weight = weight / weight.sum()
        self._center = float(weight @ target)
        scale = float(np.sqrt(weight @ (target - self._center) ** 2))
        if scale < 1e-9:
            self._scale = 0.0
            return
        self._scale = scale
        cold = not self._weights
        if cold:
            self._weights = self._initial(rng)
        own = weight * rng.exponential(size=(self._members, len(table)))
        own /= own.sum(axis=1, keepdims=True)
        standard = ((target - self._center) / scale).astype(np.float32)
        steps = self._steps * (3 if cold else 1)
        self._loss = self._train(_inputs(table.unit), standard, own.astype(np.float32), steps)

    def value(self, unit: Array) -> Array:
        """Returns log a (n,) at points (n, k) of the unit cube."""
        if self.flat:
            return np.zeros(len(unit))
        prediction = self._forward(_inputs(unit))[-1].astype(np.float64)
        spread = prediction.std(axis=0, ddof=1)
        mean: Array = prediction.mean(axis=0)
        return np.asarray(self._center + self._scale * (mean + self._kappa * spread))

    def value_and_gradient(self, unit: Array) -> tuple[Array, Array]:
        """Returns log a (n,) and its gradient (n, k) at points (n, k) of the unit cube."""
        if self.flat:
            return np.zeros(len(unit)), np.zeros_like(unit)
        first, second, single = self._forward(_inputs(unit))
        prediction = single.astype(np.float64)
        mean: Array = prediction.mean(axis=0)
        spread = np.maximum(prediction.std(axis=0, ddof=1), 1e-12)
        value = self._center + self._scale * (mean + self._kappa * spread)
        # The derivative of the value with respect to each member's prediction, then through both layers.
        share = 1.0 / self._members
        share = share + self._kappa * (prediction - mean) / ((self._members - 1) * spread)
        w = self._weights
        back = share.astype(np.float32)[:, :, None] * np.swapaxes(w["w3"], 1, 2) * (1.0 - second**2)
        back = (back @ np.swapaxes(w["w2"], 1, 2)) * (1.0 - first**2)
        gradient = (back @ np.swapaxes(w["w1"], 1, 2)).sum(axis=0).astype(np.float64)
        return value, 2.0 * self._scale * gradient

    def state(self) -> State:
        """Returns the weights and the scale of the last fit."""
        numbers = [self._center, self._scale, self._loss]
        return {"fit": numbers, **{f"weights.{k}": v.copy() for k, v in self._weights.items()}}

    def restore(self, state: State) -> None:
        """Restores the weights and the scale."""
        self._center, self._scale, self._loss = state["fit"]
        self._weights = {
            name: np.array(state[f"weights.{name}"])
            for name in _NAMES
            if f"weights.{name}" in state
        }

    def diagnostics(self) -> dict[str, float]:
        """Returns the weighted mean squared error of the last fit in standardized units, and the scale."""
        return {"ensemble_loss": self._loss, "ensemble_scale": self._scale}

    def _initial(self, rng: np.random.Generator) -> dict[str, Single]:
        widths = (self._dimension, self._hidden, self._hidden, 1)
        weights: dict[str, Single] = {}
        for layer in (1, 2, 3):
            fan_in, fan_out = widths[layer - 1], widths[layer]
            shape = (self._members, fan_in, fan_out)
            normal = rng.standard_normal(shape) / np.sqrt(fan_in)
            weights[f"w{layer}"] = normal.astype(np.float32)
            weights[f"b{layer}"] = np.zeros((self._members, 1, fan_out), dtype=np.float32)
        return weights

    def _forward(self, inputs: Single) -> tuple[Single, Single, Single]:
        """Returns both hidden layers (members, n, hidden) and the predictions (members, n)."""
        w = self._weights
        first = np.tanh(inputs @ w["w1"] + w["b1"])
        second = np.tanh(first @ w["w2"] + w["b2"])
        return first, second, (second @ w["w3"] + w["b3"])[:, :, 0]

    def _train(self, inputs: Single, target: Single, own: Single, steps: int) -> float:
        """Minimizes Σ_i own_mi (f_m(u_i) - y_i)² with full-batch AdamW; returns the mean loss of the members."""
        mean = {name: np.zeros_like(value) for name, value in self._weights.items()}
        square = {name: np.zeros_like(value) for name, value in self._weights.items()}
        loss = 0.0
        for step in range(1, steps + 1):
            loss, gradient = self._loss_gradient(inputs, target, own)
            rate = self._rate * 0.5 * (1.0 + cos(pi * (step - 1) / steps))
            for name, slope in gradient.items():
                mean[name] += (1.0 - _ADAM_MEAN) * (slope - mean[name])
                square[name] += (1.0 - _ADAM_SQUARE) * (slope**2 - square[name])
                size = np.sqrt(square[name] / (1.0 - _ADAM_SQUARE**step)) + 1e-8
                self._weights[name] -= rate * mean[name] / (1.0 - _ADAM_MEAN**step) / size
                if name.startswith("w"):
                    self._weights[name] *= 1.0 - rate * self._decay
        return loss

    def _loss_gradient(
        self, inputs: Single, target: Single, own: Single
    ) -> tuple[float, dict[str, Single]]:
        w = self._weights
        first, second, prediction = self._forward(inputs)
        error = prediction - target
        out = (2.0 * own * error)[:, :, None]
        back2 = out * np.swapaxes(w["w3"], 1, 2) * (1.0 - second**2)
        back1 = (back2 @ np.swapaxes(w["w2"], 1, 2)) * (1.0 - first**2)
        gradient = {
            "w1": inputs.T @ back1,
            "b1": back1.sum(axis=1, keepdims=True),
            "w2": np.swapaxes(first, 1, 2) @ back2,
            "b2": back2.sum(axis=1, keepdims=True),
            "w3": np.swapaxes(second, 1, 2) @ out,
            "b3": out.sum(axis=1, keepdims=True),
        }
        return float((own * error**2).sum(axis=1).mean()), gradient


def _inputs(unit: Array) -> Single:
    """Returns points of the unit cube scaled to [-1, 1], in single precision."""
    return (2.0 * unit - 1.0).astype(np.float32)

"""Rules that choose the collocation points at which the residual of an equation is minimized.

All points are in the unit cube `(n, 1 + D)`: the time, then the D coordinates. Each server rank has its own points, and
draws them with its own generator of random numbers.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from melissa_gen.errors import StudyError, nearest
from melissa_gen.tasks.arguments import require, require_count, require_number

__all__ = ["R3", "RULES", "Collocation", "Rad", "RarD", "UniformPoints", "create_collocation"]

Evaluate = Callable[[torch.Tensor], torch.Tensor]
"""Returns the absolute residuals `(n,)` at points `(n, 1 + D)`."""


class Collocation(ABC):
    """Draws collocation points, and may learn from the residuals there.

    Args:
        points: Number of points of a batch, P.
        axes: Number of coordinates with the time, 1 + D.
        device: Device of the points.
    """

    def __init__(self, points: int, axes: int, device: torch.device) -> None:
        self._points, self._axes, self._device = points, axes, device

    @abstractmethod
    def draw(self, evaluate: Evaluate) -> torch.Tensor:
        """Returns the points `(P, 1 + D)` of the next batch.

        Args:
            evaluate: Computes absolute residuals at other points.
        """

    @property
    def largest(self) -> int:
        """Largest number of points of a batch, for the memory that is promised."""
        return self._points

    def learn(self, residuals: torch.Tensor) -> None:  # noqa: B027
        """Receives the absolute residuals `(P,)` at the points of the last batch."""

    def gate(self, points: torch.Tensor) -> torch.Tensor | None:
        """Returns the factors `(P,)` of the residuals at the points; None for 1."""
        return None

    def state(self) -> dict[str, Any]:
        """Returns the state for a checkpoint, of JSON types."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Continues from the `state()` of an earlier server."""

    def _uniform(self, count: int) -> torch.Tensor:
        return torch.rand(count, self._axes, device=self._device)


class UniformPoints(Collocation):
    """New uniform points in each batch."""

    def draw(self, evaluate: Evaluate) -> torch.Tensor:
        """Returns uniform points."""
        return self._uniform(self._points)


class _Population(Collocation):
    """Points that are kept from batch to batch, and are part of the checkpoint."""

    def __init__(self, points: int, axes: int, device: torch.device) -> None:
        super().__init__(points, axes, device)
        self.population = self._uniform(points)

    def state(self) -> dict[str, Any]:
        """Returns the points."""
        return {"population": self.population.tolist()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues with the points of an earlier server."""
        found = state.get("population")
        if found:
            self.population = torch.tensor(found, device=self._device)


class R3(_Population):
    """Retain-resample-release: points whose residual is above the mean stay, the others are drawn anew.

    Reference: Daw et al., "Mitigating propagation failures in physics-informed neural networks using
    retain-resample-release (R3) sampling", arXiv 2207.02338. The causal gate is that of causal R3: residuals count with
    the factor (1 - tanh(steepness (t - shift))) / 2 in the loss and in the choice of the points. The shift grows as the
    residuals before it fall.

    Args:
        points: Number of points P.
        axes: Number of coordinates with the time.
        device: Device of the points.
        causal: Whether the causal gate is used.
        shift: Shift of the gate in the beginning, where the time is scaled to [0, 1].
        steepness: Steepness of the gate.
        tolerance: Factor of the mean square in the exponent that slows the shift down.
        rate: Largest change of the shift, before it is limited.
        limit: Limit of the factor of `rate`.
    """

    def __init__(
        self,
        points: int,
        axes: int,
        device: torch.device,
        *,
        causal: bool = False,
        shift: float = -0.5,
        steepness: float = 5.0,
        tolerance: float = 20.0,
        rate: float = 1e-3,
        limit: float = 0.1,
    ) -> None:
        super().__init__(points, axes, device)
        fits = isinstance(causal, bool)
        require("collocation.causal", causal, fits, "true and false")
        require_number("collocation.shift", shift)
        for name, value in (
            ("steepness", steepness),
            ("tolerance", tolerance),
            ("rate", rate),
            ("limit", limit),
        ):
            require_number(f"collocation.{name}", value, 0)
        self.causal, self.shift, self._steepness = causal, shift, steepness
        self._tolerance, self._rate, self._limit = tolerance, rate, limit

    def draw(self, evaluate: Evaluate) -> torch.Tensor:
        """Returns the population."""
        return self.population

    def learn(self, residuals: torch.Tensor) -> None:
        """Replaces the points whose residual is not above the mean."""
        gate = self.gate(self.population)
        fitness = residuals if gate is None else residuals * gate
        retained = self.population[fitness > fitness.mean()]
        released = len(self.population) - len(retained)
        self.population = torch.cat([retained, self._uniform(released)])
        square = float(fitness.square().mean())
        # A batch that is not finite must not make the gate so, which no rollback of the weights would mend.
        if self.causal and math.isfinite(square):
            self.shift += self._rate * min(math.exp(-self._tolerance * square), self._limit)

    def gate(self, points: torch.Tensor) -> torch.Tensor | None:
        """Returns the factors of the causal gate."""
        if not self.causal:
            return None
        return (1 - torch.tanh(self._steepness * (points[:, 0] - self.shift))) / 2

    def state(self) -> dict[str, Any]:
        """Returns the points and the shift of the gate."""
        return {**super().state(), "shift": self.shift}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues with the points and the gate of an earlier server."""
        super().restore(state)
        self.shift = state.get("shift", self.shift)


class Rad(_Population):
    """Residual-based adaptive distribution: all points are drawn anew from time to time, by their residuals.

    The density is proportional to e^power / mean(e^power) + floor with the absolute residuals e at the points of a
    dense uniform pool, from which the points are drawn without replacement.

    Reference: Wu et al., "A comprehensive study of non-adaptive and residual-based adaptive sampling for
    physics-informed neural networks", arXiv 2207.10289.

    Args:
        points: Number of points P.
        axes: Number of coordinates with the time.
        device: Device of the points.
        every: Batches between two draws.
        pool: Number of points of the pool.
        power: Exponent of the residuals, k in the paper.
        floor: Share of uniform points, c in the paper.
    """

    def __init__(
        self,
        points: int,
        axes: int,
        device: torch.device,
        *,
        every: int = 1000,
        pool: int = 20_000,
        power: float = 1.0,
        floor: float = 1.0,
    ) -> None:
        super().__init__(points, axes, device)
        require_count("collocation.every", every)
        require_count("collocation.pool", pool, points)
        require_number("collocation.power", power, 0)
        require_number("collocation.floor", floor, 0)
        self._every, self._pool, self._power, self._floor = every, pool, power, floor
        self._batches = 0

    def draw(self, evaluate: Evaluate) -> torch.Tensor:
        """Returns the population, after every `every` batches a new one."""
        if self._batches and self._batches % self._every == 0:
            self._renew(evaluate)
        self._batches += 1
        return self.population

    def state(self) -> dict[str, Any]:
        """Returns the points and the number of batches."""
        return {**super().state(), "batches": self._batches}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues with the points of an earlier server."""
        super().restore(state)
        self._batches = state.get("batches", self._batches)

    def density(self, residuals: torch.Tensor) -> torch.Tensor:
        """Returns the probabilities `(m,)` of the points of a pool with these absolute residuals.

        They are all equal if the residuals are zero, or not finite after a divergence.
        """
        powers = residuals.double() ** self._power
        mean = powers.mean()
        usable = mean > 0 and torch.isfinite(mean)
        weights = powers / mean + self._floor if usable else torch.ones_like(powers)
        return weights / weights.sum()

    def _renew(self, evaluate: Evaluate) -> None:
        self.population = self._drawn(evaluate, self._points)

    def _drawn(self, evaluate: Evaluate, count: int) -> torch.Tensor:
        pool = self._uniform(self._pool)
        density = self.density(evaluate(pool))
        # Without replacement, at least as many points need a positive probability.
        density = density.clamp(min=torch.finfo(density.dtype).tiny)
        return pool[torch.multinomial(density, count, replacement=False)]


class RarD(Rad):
    """Residual-based adaptive refinement with distribution: points drawn by their residuals are added.

    Reference: as `Rad`, with power 2 and floor 0 by default.

    Args:
        points: Number of points in the beginning.
        axes: Number of coordinates with the time.
        device: Device of the points.
        added: Number of points that are added each time.
        largest: Largest number of points; the memory that is promised counts it.
        others: Arguments of `Rad`.
    """

    def __init__(
        self,
        points: int,
        axes: int,
        device: torch.device,
        *,
        added: int = 10,
        largest: int | None = None,
        power: float = 2.0,
        floor: float = 0.0,
        **others: Any,
    ) -> None:
        super().__init__(points, axes, device, power=power, floor=floor, **others)
        self._added, self._largest = added, 2 * points if largest is None else largest
        require_count("collocation.added", added)
        require_count("collocation.largest", self._largest, points)

    @property
    def largest(self) -> int:
        """Largest number of points of a batch, to which points are added."""
        return self._largest

    def _renew(self, evaluate: Evaluate) -> None:
        room = min(self._added, self._largest - len(self.population))
        if room > 0:
            self.population = torch.cat([self.population, self._drawn(evaluate, room)])


RULES: dict[str, type[Collocation]] = {
    "uniform": UniformPoints,
    "rad": Rad,
    "rar_d": RarD,
    "r3": R3,
}


def create_collocation(
    given: str | Mapping[str, Any],
    points: int,
    axes: int,
    device: torch.device,
    others: Sequence[str] = (),
) -> Collocation:
    """Creates the rule that a study names.

    Args:
        given: Name of the rule, or a mapping with `method` and the arguments of the rule.
        points: Number of points of a batch.
        axes: Number of coordinates with the time.
        device: Device of the points.
        others: Further legal names, which another function creates.

    Raises:
        StudyError: The rule or an argument is not legal.
    """
    key = "surrogate.task.arguments.collocation"
    fits = isinstance(given, str | Mapping)
    require("collocation", given, fits, "the name of a rule, or {method: NAME, ...}")
    arguments = {"method": given} if isinstance(given, str) else dict(given)
    method = arguments.pop("method", None)
    if method not in RULES:
        legal = [*RULES, *(name for name in others if name not in RULES)]
        message = f"{key} has the method '{method}'; legal are {', '.join(legal)}{nearest(str(method), legal)}"
        raise StudyError(message)
    try:
        return RULES[method](points, axes, device, **arguments)
    except TypeError as error:
        message = f"{key} does not match method {method}: {error}"
        raise StudyError(message) from error

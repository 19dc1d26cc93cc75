"""Collocation points from a sampler of the package: the interface that a study's builder provides, and the rule."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from melissa_gen.tasks.arguments import require_count
from melissa_gen.tasks.collocation import Collocation, Evaluate

__all__ = ["PointSampler", "PointSamplers", "SampledPoints"]

Array = NDArray[np.float64]


class PointSampler(Protocol):
    """Draws points of the unit cube, and may learn where residuals are large.

    Attributes:
        learns: Whether `ingest` has an effect.
    """

    learns: bool

    def suggest(self, count: int) -> Array:
        """Draws points `(count, 1 + D)`."""

    def ingest(self, points: Array, residuals: Array) -> None:
        """Receives the absolute residuals `(n,)` at points `(n, 1 + D)`."""

    def state(self) -> dict[str, Any]:
        """Returns the state, of JSON types."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from a state."""


class PointSamplers(Protocol):
    """Creates samplers by name.

    Attributes:
        names: The legal names.
    """

    names: tuple[str, ...]

    def create(
        self, method: str, axes: int, seed: int, arguments: Mapping[str, Any], key: str
    ) -> PointSampler:
        """Creates a sampler of the unit cube.

        Args:
            method: One of `names`.
            axes: Number of coordinates with the time.
            seed: Seed.
            arguments: Arguments of the method.
            key: Key of the rule in the study, for messages.

        Raises:
            StudyError: An argument is not legal.
        """


class SampledPoints(Collocation):
    """Points that a sampler draws: new ones in each batch, or if it learns, after every `every` batches.

    A sampler that learns receives the residuals at its points before it draws new ones.

    Args:
        points: Number of points P.
        axes: Number of coordinates with the time.
        device: Device of the points.
        sampler: The sampler.
        every: Batches between two draws; None: 1, or 100 for a sampler that learns.
    """

    def __init__(
        self,
        points: int,
        axes: int,
        device: torch.device,
        sampler: PointSampler,
        every: int | None = None,
    ) -> None:
        super().__init__(points, axes, device)
        self._every = (100 if sampler.learns else 1) if every is None else every
        require_count("collocation.every", self._every)
        self._sampler, self._batches = sampler, 0
        self._population: torch.Tensor | None = None
        # The same points in double precision: the sampler recognizes those that it has drawn.
        self._drawn: Array | None = None

    def draw(self, evaluate: Evaluate) -> torch.Tensor:
        """Returns the points of the sampler's last draw, or of a new one."""
        if self._population is None or self._batches % self._every == 0:
            if self._population is not None and self._sampler.learns:
                self._ingest(evaluate(self._population))
            self._population = self._place(self._sampler.suggest(self._points))
        self._batches += 1
        return self._population

    def _place(self, drawn: Array) -> torch.Tensor:
        """Keeps points that the sampler has drawn, and returns them for the training."""
        self._drawn = drawn
        return torch.from_numpy(drawn).to(self._device, torch.get_default_dtype())

    def _ingest(self, residuals: torch.Tensor) -> None:
        # A batch that is not finite must not become the evidence of the sampler.
        if self._drawn is not None and bool(torch.isfinite(residuals).all()):
            self._sampler.ingest(self._drawn, residuals.double().cpu().numpy())

    def state(self) -> dict[str, Any]:
        """Returns the points, the number of batches, and the state of the sampler."""
        population = None if self._drawn is None else self._drawn.tolist()
        return {
            "population": population,
            "batches": self._batches,
            "sampler": self._sampler.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues with the points and the sampler of an earlier server."""
        if state.get("sampler"):
            self._sampler.restore(state["sampler"])
        if state.get("population"):
            self._population = self._place(np.array(state["population"], np.float64))
            self._batches = state["batches"]

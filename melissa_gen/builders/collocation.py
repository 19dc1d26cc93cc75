"""Samplers of collocation points: those of `melissa_gen.sampling`, on the unit cube of time and coordinates."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melissa_gen.errors import StudyError
from melissa_gen.sampling import METHODS, Evidence, Prior, Sampler, create, split_state

__all__ = ["SamplersOfPoints"]

Array = NDArray[np.float64]

_WITHOUT_PRIOR = ("grid", "pick_freeze", "table", "uniform_resampled", "external")
"""Methods whose points do not cover a cube of coordinates, or which need files of the study."""


class SamplersOfPoints:
    """Creates samplers of collocation points.

    Attributes:
        names: The methods of `sampler.method` that can draw collocation points.
    """

    names = tuple(name for name in METHODS if name not in _WITHOUT_PRIOR)

    def create(
        self, method: str, axes: int, seed: int, arguments: Mapping[str, Any], key: str
    ) -> "SamplerOfPoints":
        """Creates a sampler of the unit cube; see `melissa_gen.tasks.point_samplers`.

        Raises:
            StudyError: An argument is not legal.
        """
        prior = Prior.from_mapping(
            {f"axis_{k}": {"distribution": "uniform", "low": 0.0, "high": 1.0} for k in range(axes)}
        )
        try:
            sampler = create(method, prior, seed, arguments=arguments)
        except StudyError as error:
            message = f"{key}: {error}"
            raise StudyError(message) from None
        return SamplerOfPoints(sampler, METHODS[method].learns)


class SamplerOfPoints:
    """A sampler whose simulations are collocation points, and whose difficulty is the residual.

    Args:
        sampler: The sampler.
        learns: Whether it uses the residuals.
    """

    def __init__(self, sampler: Sampler, learns: bool) -> None:
        self._sampler, self.learns = sampler, learns
        self._known = 0

    def suggest(self, count: int) -> Array:
        """Draws points `(count, 1 + D)`."""
        return self._sampler.suggest(count).points

    def ingest(self, points: Array, residuals: Array) -> None:
        """Receives the absolute residuals `(n,)` at points `(n, 1 + D)`."""
        self._sampler.ingest(
            [
                Evidence(self._known + number, point, float(residual))
                for number, (point, residual) in enumerate(zip(points, residuals, strict=True))
            ]
        )
        self._known += len(points)

    def state(self) -> dict[str, Any]:
        """Returns the state, of JSON types."""
        values, arrays = split_state(self._sampler.state())
        packed = {name: [str(a.dtype), a.shape, a.tolist()] for name, a in arrays.items()}
        return {"values": values, "arrays": packed, "known": self._known}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from a state."""
        arrays = {
            name: np.array(values, dtype).reshape(shape)
            for name, (dtype, shape, values) in state["arrays"].items()
        }
        self._sampler.restore({**state["values"], **arrays})
        self._known = state["known"]

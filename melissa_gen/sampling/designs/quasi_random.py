"""Points that fill the cube more evenly than independent ones, each of them uniform by itself.

Reference: Owen, "Randomly permuted (t,m,s)-nets and (t,s)-sequences", 1995; Joe and Kuo, "Constructing Sobol sequences
with better two-dimensional projections", 2008.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.base import State
from melissa_gen.sampling.designs.design_sampler import PointSequence

__all__ = ["QuasiRandom", "SobolSequence"]


class QuasiRandom(PointSequence):
    """A sequence of points that goes on where it was.

    Args:
        dimension: axes k; none at all still counts its points.
        seed: of the scrambling.
        scramble: without it the points are always the same, and none is random.
    """

    _engine: Any

    def __init__(self, dimension: int, seed: int, scramble: bool = True) -> None:
        self._dimension, self._scramble = dimension, scramble
        self._start(seed)

    def _start(self, seed: int) -> None:
        self._seed = seed
        self._engine = self._create_engine(max(self._dimension, 1), seed)

    def _create_engine(self, dimension: int, seed: int) -> Any:
        """The library's engine, at its first point; it has `num_generated` and `fast_forward`."""
        raise NotImplementedError

    def state(self) -> State:
        """Everything that `restore` takes."""
        return {"seed": self._seed, "drawn": int(self._engine.num_generated)}

    def restore(self, state: State) -> None:
        """Goes to a saved position."""
        self._start(state["seed"])
        if state["drawn"] > 0:
            self._engine.fast_forward(state["drawn"])


class SobolSequence(QuasiRandom):
    """A Sobol sequence."""

    def _create_engine(self, dimension: int, seed: int) -> Any:
        from torch.quasirandom import SobolEngine  # scipy's takes 50 MB more beside a network

        return SobolEngine(dimension, self._scramble, seed)  # type: ignore[no-untyped-call]

    def draw(self, n: int, generation: int = 0) -> NDArray[np.float64]:
        """The next n points (n, k) of the unit cube."""
        import torch

        points: NDArray[np.float64] = self._engine.draw(n, dtype=torch.float64).numpy()
        return points[:, : self._dimension]

"""Quasi-random sequences, which fill the unit cube more evenly than independent points.

With scrambling, each single point is uniform on the cube.

References: Owen, "Randomly permuted (t,m,s)-nets and (t,s)-sequences", 1995; Joe and Kuo, "Constructing Sobol sequences
with better two-dimensional projections", 2008.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.base import State
from melissa_gen.sampling.designs.design_sampler import PointSequence
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["QuasiRandom", "SobolSequence", "even_draws"]


class QuasiRandom(PointSequence):
    """Base class of the quasi-random sequences, whose position can be saved and restored.

    Args:
        dimension: Number of axes k, at least 0.
        seed: Seed of the scrambling.
        scramble: Whether the sequence is scrambled at random. If False, the sequence is always the
            same.
    """

    _engine: Any

    def __init__(self, dimension: int, seed: int, scramble: bool = True) -> None:
        self._dimension, self._scramble = dimension, scramble
        self._start(seed)

    def _start(self, seed: int) -> None:
        self._seed = seed
        self._engine = self._create_engine(max(self._dimension, 1), seed)

    @abstractmethod
    def _create_engine(self, dimension: int, seed: int) -> Any:
        """Creates the engine of the library, which has `num_generated` and `fast_forward`, at its first point."""

    def state(self) -> State:
        """Returns the seed and the number of points drawn."""
        return {"seed": self._seed, "drawn": int(self._engine.num_generated)}

    def restore(self, state: State) -> None:
        """Moves to a saved position."""
        self._start(state["seed"])
        if state["drawn"] > 0:
            self._engine.fast_forward(state["drawn"])


class SobolSequence(QuasiRandom):
    """A Sobol sequence (torch.quasirandom)."""

    def _create_engine(self, dimension: int, seed: int) -> Any:
        # The engine of scipy would take 50 MB more in a process that already imports torch.
        from torch.quasirandom import SobolEngine

        # The constructor has no type hints.
        return SobolEngine(dimension, self._scramble, seed)  # type: ignore[no-untyped-call]

    def draw(self, n: int, generation: int = 0) -> NDArray[np.float64]:
        """Returns the next n points (n, k) of the unit cube."""
        import torch

        if n == 0:
            # At its first point, the engine refuses to draw none.
            return np.empty((0, self._dimension))
        points: NDArray[np.float64] = self._engine.draw(n, dtype=torch.float64).numpy()
        return points[:, : self._dimension]


def even_draws(prior: Prior) -> Callable[[int, np.random.Generator], NDArray[np.float64]]:
    """Returns a function that draws n points (n, k) of a prior in the unit cube, as evenly as it can.

    They are the first points of a newly scrambled Sobol sequence. Under constraints, or with a table of
    points, they are independent draws.

    Args:
        prior: Prior distribution p(λ) of the parameters.
    """
    if not prior.whole_cube:
        return prior.sample_unit

    def draw(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        return SobolSequence(prior.unit_dimension, int(rng.integers(2**31))).draw(n)

    return draw

"""`grid`: a full factorial grid, visited in a scrambled order.

Every axis has `levels` values, at the centers of equal cells of the unit cube (so equally probable
under the prior) or from edge to edge. The order is an affine map of the grid's numbering,
i → (a i + b) mod N with a prime to N: every point comes exactly once, and a run that stops early
has seen all of the box rather than one side of it. When all N points have come, the grid starts
again with the next order, since a sampler must always have a point to give. N = levels^d: past a
few dimensions no run ends a grid, and `sobol` covers the box better.
"""

from math import gcd

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.arguments import Arguments
from melissa_gen.sampling.base import State
from melissa_gen.sampling.designs.design_sampler import DesignSampler, PointSequence
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["GridArguments", "build"]


class GridArguments(Arguments):
    """Arguments of `grid`."""

    levels: int = Field(5, ge=1, le=100_000, description="values on each axis")
    edges: bool = Field(False, description="from edge to edge rather than at the cells' centers")
    scramble: bool = Field(True, description="visit in a scrambled order, or row by row")


class _Grid(PointSequence):
    """Numbers are Python integers: 5^300 points are no trouble."""

    def __init__(self, dimension: int, seed: int, arguments: GridArguments) -> None:
        self._dimension = dimension
        self._levels = arguments.levels
        self._scramble = arguments.scramble
        self._size = arguments.levels**dimension
        self._drawn = 0
        self._start(seed)
        if arguments.edges and arguments.levels > 1:
            self._values = np.linspace(0.0, 1.0, arguments.levels)
        else:
            self._values = (np.arange(arguments.levels) + 0.5) / arguments.levels

    def _start(self, seed: int) -> None:
        self._seed = seed
        self._round = -1

    def _order(self, number: int) -> None:
        """Sets a and b of one round."""
        self._round = number
        self._factor, self._offset = 1, 0
        if not self._scramble:
            return
        rng = np.random.default_rng([self._seed, number])
        self._offset = _below(self._size, rng)
        self._factor = _below(self._size, rng)
        while gcd(self._factor, self._size) != 1:
            self._factor += 1

    def draw(self, n: int, generation: int) -> NDArray[np.float64]:
        level = np.zeros((n, self._dimension), dtype=np.int64)
        for row in range(n):
            number, place = divmod(self._drawn, self._size)
            if number != self._round:
                self._order(number)
            index = (self._factor * place + self._offset) % self._size
            for axis in range(self._dimension - 1, -1, -1):
                index, level[row, axis] = divmod(index, self._levels)
            self._drawn += 1
        return np.asarray(self._values[level])

    def state(self) -> State:
        return {"seed": self._seed, "drawn": str(self._drawn)}

    def restore(self, state: State) -> None:
        self._start(state["seed"])
        self._drawn = int(state["drawn"])


def _below(size: int, rng: np.random.Generator) -> int:
    """A random whole number from 0 to size - 1, of any length (its bias is below 2^-64)."""
    return int.from_bytes(rng.bytes(size.bit_length() // 8 + 9), "little") % size


def build(prior: Prior, seed: int, arguments: GridArguments, schedule: Schedule) -> DesignSampler:
    """The `grid` sampler."""
    return DesignSampler("grid", prior, _Grid(prior.unit_dimension, seed, arguments))

"""`grid`: a full factorial grid, visited in a scrambled order.

Every axis has `levels` values. They are the centers of equal cells of the unit cube, which are equally
probable under the prior, or they include both edges. The order is an affine map of the numbers of the
N grid points, i → (a i + b) mod N with a coprime to N. Each point occurs exactly once, and a run that
stops early has covered the whole box rather than one side of it. After N points the grid starts again
in another order, because a sampler must always have a next point. Since N = levels^d, a run does not
complete a grid in more than a few dimensions; `sobol` then covers the box better.
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

    levels: int = Field(5, ge=1, le=100_000, description="number of values on each axis")
    edges: bool = Field(False, description="include both edges, instead of the centers of cells")
    scramble: bool = Field(True, description="visit the points in a scrambled order, or row by row")


class _Grid(PointSequence):
    """Points of a grid; their numbers are Python integers, because there may be more than 2^64 points."""

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
        """Sets the factor a and the offset b of one pass through the grid."""
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
            number, position = divmod(self._drawn, self._size)
            if number != self._round:
                self._order(number)
            index = (self._factor * position + self._offset) % self._size
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
    """Returns a random integer from 0 to size - 1 of any length; its bias is below 2^-64."""
    return int.from_bytes(rng.bytes(size.bit_length() // 8 + 9), "little") % size


def build(prior: Prior, seed: int, arguments: GridArguments, schedule: Schedule) -> DesignSampler:
    """Creates the `grid` sampler."""
    return DesignSampler("grid", prior, _Grid(prior.unit_dimension, seed, arguments))

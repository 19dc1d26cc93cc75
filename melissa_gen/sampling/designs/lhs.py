"""`lhs`: Latin hypercubes (scipy.stats.qmc), one after the other.

A Latin hypercube of m points has exactly one point in each of the m slices of every axis. Only a
complete hypercube is balanced, so `size` should be the number of simulations planned. After the last
point of a hypercube, the next one of the same size begins.

Reference: McKay, Beckman, Conover, "A comparison of three methods for selecting values of input
variables in the analysis of output from a computer code", Technometrics 21 (1979).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.arguments import Arguments, StudyFacts
from melissa_gen.sampling.base import State
from melissa_gen.sampling.designs.design_sampler import DesignSampler, PointSequence
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["LhsArguments", "build"]


class LhsArguments(Arguments):
    """Arguments of `lhs`."""

    size: int = Field(
        100,
        ge=1,
        le=1_000_000,
        description="number of points in a hypercube: the simulations planned",
    )

    @classmethod
    def completed(cls, given: Mapping[str, Any], facts: StudyFacts) -> dict[str, Any]:
        """Sets `size` to the number of simulations planned."""
        return {"size": facts.simulations, **given}


class _Hypercubes(PointSequence):
    def __init__(self, dimension: int, seed: int, size: int) -> None:
        self._dimension = dimension
        self._size = size
        self._seed = seed
        self._drawn = 0
        self._current = -1
        self._points = np.empty((0, dimension))

    def draw(self, n: int, generation: int) -> NDArray[np.float64]:
        drawn = np.empty((n, self._dimension))
        for row in range(n):
            number, position = divmod(self._drawn, self._size)
            if number != self._current:
                self._points = self._hypercube(number)
                self._current = number
            drawn[row] = self._points[position]
            self._drawn += 1
        return drawn

    def _hypercube(self, number: int) -> NDArray[np.float64]:
        rng = np.random.default_rng([self._seed, number])
        # Importing scipy.stats takes 50 MB, so it is imported only where it is used.
        from scipy.stats import qmc

        engine = qmc.LatinHypercube(max(self._dimension, 1), seed=rng)
        return np.asarray(engine.random(self._size)[:, : self._dimension])

    def state(self) -> State:
        return {"seed": self._seed, "drawn": self._drawn, "size": self._size}

    def restore(self, state: State) -> None:
        # More simulations than planned do not change the hypercubes that were begun.
        self._seed, self._drawn, self._size = state["seed"], state["drawn"], state["size"]
        self._current = -1


def build(prior: Prior, seed: int, arguments: LhsArguments, schedule: Schedule) -> DesignSampler:
    """Creates the `lhs` sampler."""
    return DesignSampler("lhs", prior, _Hypercubes(prior.unit_dimension, seed, arguments.size))

"""All statistics of one field, as a study selects them."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from melissa_gen.statistics.estimator import Array
from melissa_gen.statistics.moments import Moments
from melissa_gen.statistics.quantiles import Quantiles
from melissa_gen.statistics.ranges import Exceedance, Extremes
from melissa_gen.statistics.sobol_groups import SobolGroups
from melissa_gen.statistics.waiting_samples import BATCH, WaitingSamples

__all__ = ["ChosenStatistics", "FieldStatistics"]


@dataclass(frozen=True)
class ChosenStatistics:
    """The statistics of a field.

    Attributes:
        order: Highest order of the moments, 2 to 4.
        thresholds: Thresholds of the exceedance, in the field's unit.
        quantiles: Probabilities of the quantiles.
        covariances: Number of parameters of the covariances, 0 for none.
        sobol: Number of parameters of the Sobol indices, 0 for none.
        groups: Number of groups of the Sobol indices that are planned, over all ranks.
        open_groups: Incomplete groups of the Sobol indices that a rank keeps in memory.
        ranks: Number of server ranks, over which the groups of the Sobol indices are distributed.
    """

    order: int = 4
    thresholds: tuple[float, ...] = ()
    quantiles: tuple[float, ...] = ()
    covariances: int = 0
    sobol: int = 0
    groups: int = 0
    open_groups: int = 1
    ranks: int = 1

    def megabytes(self, steps: int, shape: tuple[int, ...], item_bytes: int = 4) -> float:
        """Returns the memory of the statistics of a field in megabytes, without copies.

        Args:
            steps: Number of time steps.
            shape: Shape of the field.
            item_bytes: Bytes of one value of a sample.
        """
        arrays = self.order + 2 + len(self.thresholds) + 2 * len(self.quantiles) + self.covariances
        waiting = BATCH
        if self.sobol:
            arrays += 4 * self.sobol + 4
            waiting += self.open_groups * (self.sobol + 2)
        return steps * prod(shape) * (8 * arrays + item_bytes * waiting) / 1e6


class FieldStatistics:
    """The statistics of one field over all simulations, per time step and point.

    Args:
        steps: Number of time steps t.
        shape: Shape of the field.
        selection: The statistics.
        dtype: Type of the field.
    """

    def __init__(
        self,
        steps: int,
        shape: tuple[int, ...],
        selection: ChosenStatistics,
        dtype: str = "float32",
    ) -> None:
        self.selection, self._shape = selection, shape
        points = prod(shape)
        self.waiting = WaitingSamples(steps, points, selection.covariances, dtype)
        self.moments = Moments(steps, points, selection.order, selection.covariances)
        self.extremes = Extremes(steps, points)
        self.exceedance = (
            Exceedance(steps, points, selection.thresholds) if selection.thresholds else None
        )
        self.quantiles = (
            Quantiles(steps, points, selection.quantiles) if selection.quantiles else None
        )
        self.sobol = (
            SobolGroups(
                steps, shape, selection.sobol, selection.open_groups, dtype, selection.ranks
            )
            if selection.sobol
            else None
        )

    def update(
        self, simulation: int, step: int, values: NDArray[Any], parameters: Array, weight: float
    ) -> None:
        """Adds one sample.

        Args:
            simulation: Number of the simulation.
            step: Time step.
            values: `(*shape)`.
            parameters: Parameters of the simulation, `(d,)`.
            weight: Importance weight; the Sobol indices do not use it.
        """
        if self.waiting.add(step, values, weight, parameters):
            self._include(step)
        if self.sobol is not None:
            self.sobol.update(simulation, step, values)

    def merge(self, other: Self) -> None:
        """Adds the samples of another rank, none of which then waits there."""
        self.include_all()
        other.include_all()
        for name, part in self._parts().items():
            part.merge(other._parts()[name])

    def results(self) -> dict[str, NDArray[Any]]:
        """Returns all estimates by name; the first axis is the time step, the second the level or the parameter."""
        self.include_all()
        found = self.moments.results() | self.extremes.results()
        for part in (self.exceedance, self.quantiles):
            found |= part.results() if part is not None else {}
        found = {
            name: array.reshape(*array.shape[:-1], *self._shape) if array.ndim > 1 else array
            for name, array in found.items()
        }
        return found | (self.sobol.indices.results() if self.sobol is not None else {})

    def include_all(self) -> None:
        """Includes the samples that wait."""
        for step in self.waiting.steps():
            self._include(step)

    def state(self) -> dict[str, Any]:
        """Returns a copy of the state: nested dicts of arrays."""
        return {
            "waiting": self.waiting.state(),
            **{name: part.state() for name, part in self._parts().items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues exactly from a `state()`."""
        for name, part in self._parts().items():
            part.restore(state[name])
        self.waiting.restore(state["waiting"])

    def adopt(self, state: Mapping[str, Any]) -> None:
        """Uses the arrays of a `state()` without a copy, for `results` and as the argument of `merge`.

        Both include the samples that wait, in these arrays.
        """
        for name, part in self._parts().items():
            part.adopt(state[name])
        self.waiting.restore(state["waiting"])

    def finish(self) -> None:
        """Leaves out the groups of the Sobol indices that are incomplete; no sample may follow."""
        if self.sobol is not None:
            self.sobol.finish()

    def figures(self, *, over: bool = False) -> dict[str, float]:
        """Returns the numbers of the whole field by name.

        Args:
            over: Whether the study is over, so that planned groups of which no sample has arrived are left out too.
        """
        if self.sobol is None:
            return {}
        left_out = self.sobol.left_out
        if over:
            left_out = max(left_out, self.selection.groups - self.sobol.complete)
        return {"groups_left_out": left_out, "groups_open": self.sobol.waiting}

    def _include(self, step: int) -> None:
        """Gives the estimators the samples of a time step that wait."""
        values, weights, parameters = self.waiting.take(step)
        self.moments.update(step, values, weights, parameters)
        self.extremes.update(step, values)
        if self.exceedance is not None:
            self.exceedance.update(step, values, weights)
        if self.quantiles is not None:
            with np.errstate(invalid="ignore"):
                deviation = np.sqrt(self.moments.variance(step))
            low, high = (self.extremes.arrays[name][step] for name in ("minimum", "maximum"))
            self.quantiles.update(step, values, weights, deviation, low, high)

    def _parts(self) -> dict[str, Any]:
        parts = {
            "moments": self.moments,
            "extremes": self.extremes,
            "exceedance": self.exceedance,
            "quantiles": self.quantiles,
            "sobol": self.sobol,
        }
        return {name: part for name, part in parts.items() if part is not None}

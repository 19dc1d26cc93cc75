"""Gathers the samples of pick-freeze groups, whose simulations end at different times, for the Sobol indices."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from melissa_gen.statistics.estimator import Array
from melissa_gen.statistics.sobol_indices import SobolIndices

__all__ = ["SobolGroups"]


class SobolGroups:
    """Adds a group to the indices of a time step as soon as the samples of all its members have arrived.

    The simulations of R = `ranks` groups alternate: with b, p = divmod(s, R (d + 2)), simulation s is member p div R of
    group b R + p mod R. All members of a group therefore have the same s mod R, and belong to one server rank. Samples
    of incomplete groups are kept in memory. If there are more groups than `open_groups`, the oldest is left out: one of
    its simulations has failed, or is far behind. At the end, incomplete groups are left out too.

    Args:
        steps: Number of time steps t.
        shape: Shape of the field.
        parameters: Number of parameters d.
        open_groups: Largest number of incomplete groups that are kept.
        dtype: Type of the samples.
        ranks: Number of server ranks.
    """

    def __init__(
        self,
        steps: int,
        shape: tuple[int, ...],
        parameters: int,
        open_groups: int,
        dtype: str = "float32",
        ranks: int = 1,
    ) -> None:
        self.indices = SobolIndices(steps, shape, parameters)
        self._size, self._steps, self._open = parameters + 2, steps, open_groups
        self._ranks = ranks
        self._shape, self._dtype = shape, dtype
        self._values: dict[int, NDArray[Any]] = {}
        self._arrived: dict[int, NDArray[np.bool_]] = {}
        self._abandoned: set[int] = set()
        self._complete = 0
        # Incomplete groups of other ranks, whose samples stay there.
        self._elsewhere = 0

    @property
    def left_out(self) -> int:
        """Number of groups so far that lack a sample and will not be completed."""
        return len(self._abandoned)

    @property
    def complete(self) -> int:
        """Number of groups so far with the samples of all members and time steps, those of merged ranks included."""
        return self._complete

    @property
    def waiting(self) -> int:
        """Number of incomplete groups, those of merged ranks included."""
        return len(self._values) + self._elsewhere

    def update(self, simulation: int, step: int, values: Array) -> None:
        """Adds one sample `(*shape)`."""
        block, place = divmod(simulation, self._ranks * self._size)
        member, rank = divmod(place, self._ranks)
        group = block * self._ranks + rank
        if group in self._abandoned:
            return
        if group not in self._values:
            if len(self._values) >= self._open:
                self._abandon(min(self._values))
            self._values[group] = np.zeros((self._steps, self._size, *self._shape), self._dtype)
            self._arrived[group] = np.zeros((self._steps, self._size), bool)
        self._values[group][step, member] = values
        arrived = self._arrived[group]
        arrived[step, member] = True
        if arrived[step].all():
            self.indices.update(step, self._values[group][step].astype(np.float64))
            if arrived.all():
                self._complete += 1
                self._forget(group)

    def finish(self) -> None:
        """Leaves out the groups that are still incomplete."""
        for group in sorted(self._values):
            self._abandon(group)

    def merge(self, other: Self) -> None:
        """Adds the groups of another rank, which has other groups; its incomplete ones are only counted."""
        self.indices.merge(other.indices)
        self._abandoned |= other._abandoned
        self._complete += other._complete
        self._elsewhere += other.waiting

    def state(self) -> dict[str, Any]:
        """Returns a copy of the state: the indices and the samples of incomplete groups."""
        numbers = sorted(self._values)
        empty = np.zeros((0, self._steps, self._size, *self._shape), self._dtype)
        return self.indices.state() | {
            "open": np.array(numbers, np.int64),
            "abandoned": np.array(sorted(self._abandoned), np.int64),
            "complete": np.array(self._complete, np.int64),
            "values": np.stack([self._values[n] for n in numbers]) if numbers else empty,
            "arrived": np.array([self._arrived[n] for n in numbers], bool),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues exactly from a `state()`."""
        self.indices.restore(state)
        self._take_groups(state)
        self._values = {group: values.copy() for group, values in self._values.items()}
        self._arrived = {group: arrived.copy() for group, arrived in self._arrived.items()}

    def adopt(self, state: Mapping[str, Any]) -> None:
        """Uses the arrays of a `state()` without a copy."""
        self.indices.adopt(state)
        self._take_groups(state)

    def _take_groups(self, state: Mapping[str, Any]) -> None:
        numbers = state["open"].tolist()
        self._abandoned = set(state["abandoned"].tolist())
        self._complete = int(state["complete"])
        self._values = dict(zip(numbers, state["values"], strict=True))
        self._arrived = dict(zip(numbers, state["arrived"], strict=True))

    def _abandon(self, group: int) -> None:
        self._abandoned.add(group)
        self._forget(group)

    def _forget(self, group: int) -> None:
        del self._values[group], self._arrived[group]

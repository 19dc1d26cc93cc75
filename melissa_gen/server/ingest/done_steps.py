"""The complete time steps of each simulation on one server rank, in little memory for finished simulations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melissa_gen.protocol import wire

__all__ = ["DoneSteps", "merged_done"]


class DoneSteps:
    """Which samples this rank has received.

    A simulation of which all samples of this rank are complete takes one byte; one under way takes one byte a step.

    Args:
        simulations: Number of simulations.
        time_steps: Samples per simulation over all server ranks.
        rank: This server rank.
        ranks: Number of server ranks.
    """

    def __init__(self, simulations: int, time_steps: int, rank: int, ranks: int) -> None:
        self._time_steps, self._rank, self._ranks = time_steps, rank, ranks
        self._complete = bytearray(simulations)
        # Simulations of which some samples are complete: which ones, and the number of the missing ones.
        self._partial: dict[int, bytearray] = {}
        self._missing: dict[int, int] = {}

    def __contains__(self, sample: tuple[int, int]) -> bool:
        """Whether a sample (simulation, step) is complete."""
        simulation, step = sample
        if self._complete[simulation]:
            return True
        steps = self._partial.get(simulation)
        return steps is not None and steps[step] == 1

    def add(self, simulation: int, step: int) -> None:
        """Marks a sample of this rank as complete."""
        if (simulation, step) in self:
            return
        if simulation not in self._partial:
            self._partial[simulation] = bytearray(self._time_steps)
            self._missing[simulation] = len(self._owned(simulation))
        self._partial[simulation][step] = 1
        self._missing[simulation] -= 1
        if not self._missing[simulation]:
            del self._partial[simulation], self._missing[simulation]
            self._complete[simulation] = 1

    def remove(self, simulation: int, step: int) -> None:
        """Marks a sample as missing."""
        if (simulation, step) not in self:
            return
        if self._complete[simulation]:
            self._complete[simulation] = 0
            steps = bytearray(self._time_steps)
            for one in self._owned(simulation):
                steps[one] = 1
            self._partial[simulation], self._missing[simulation] = steps, 0
        self._partial[simulation][step] = 0
        self._missing[simulation] += 1

    def state(self) -> dict[str, Any]:
        """Returns the state for a checkpoint: arrays, as bits."""
        steps = np.frombuffer(b"".join(self._partial.values()), np.uint8)
        return {
            "complete": np.packbits(np.frombuffer(self._complete, np.uint8)),
            "partial": np.array(list(self._partial), np.int64),
            "steps": np.packbits(steps.reshape(len(self._partial), self._time_steps), axis=1),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores the `state()` of an earlier server."""
        known = np.unpackbits(state["complete"])[: len(self._complete)].tobytes()
        self._complete = bytearray(known.ljust(len(self._complete), b"\0"))
        steps = np.unpackbits(state["steps"], axis=1, count=self._time_steps)
        for simulation, row in zip(state["partial"].tolist(), steps, strict=True):
            for step in self._owned(simulation):
                if row[step]:
                    self.add(simulation, step)

    def _owned(self, simulation: int) -> range:
        return wire.owned_steps(simulation, self._time_steps, self._rank, self._ranks)


def merged_done(states: Sequence[Mapping[str, Any]], time_steps: int) -> dict[str, Any]:
    """Merges the states of all ranks to one that every rank of another number of ranks can restore.

    Args:
        states: Results of `DoneSteps.state` of all ranks, in order.
        time_steps: Samples per simulation over all ranks.
    """
    ranks = len(states)
    complete = np.stack([np.unpackbits(state["complete"]) for state in states]).astype(bool)
    steps: dict[int, NDArray[np.uint8]] = {}
    some = np.flatnonzero(complete.any(axis=0) & ~complete.all(axis=0)).tolist()
    for simulation in {*some, *(n for state in states for n in state["partial"].tolist())}:
        steps[simulation] = np.zeros(time_steps, np.uint8)
        for rank in np.flatnonzero(complete[:, simulation]).tolist():
            owned = wire.owned_steps(simulation, time_steps, rank, ranks)
            steps[simulation][list(owned)] = 1
    for state in states:
        rows = np.unpackbits(state["steps"], axis=1, count=time_steps)
        for simulation, row in zip(state["partial"].tolist(), rows, strict=True):
            steps[simulation] |= row
    return {
        "complete": np.packbits(complete.all(axis=0)),
        "partial": np.array(list(steps), np.int64),
        "steps": np.packbits(
            np.array(list(steps.values()), np.uint8).reshape(len(steps), time_steps), axis=1
        ),
    }

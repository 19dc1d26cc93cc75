"""The complete time steps of the simulations of one server rank, in little memory for finished simulations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from melissa_gen.protocol import wire

__all__ = ["DoneSteps", "merged_done"]


class DoneSteps:
    """Which samples this rank has received.

    A simulation of which all samples are complete takes one byte; one under way takes one byte a step.

    Args:
        simulations: Number of simulations.
        time_steps: Samples per simulation.
        rank: This server rank.
        ranks: Number of server ranks.
    """

    def __init__(self, simulations: int, time_steps: int, rank: int, ranks: int) -> None:
        self._time_steps, self._rank, self._ranks = time_steps, rank, ranks
        self._complete = bytearray(simulations)
        self._none, self._all = bytes(time_steps), b"\1" * time_steps
        # Simulations of which some samples are complete: which ones, and the number of the missing ones.
        self._partial: dict[int, bytearray] = {}
        self._missing: dict[int, int] = {}

    def __contains__(self, sample: tuple[int, int]) -> bool:
        """Whether a sample (simulation, step) is complete."""
        simulation, step = sample
        return self.of(simulation)[step] == 1

    def of(self, simulation: int) -> bytes | bytearray:
        """Returns 1 for each complete time step of a simulation, else 0; valid until the next change."""
        return self._partial.get(
            simulation, self._all if self._complete[simulation] else self._none
        )

    def complete(self, simulation: int) -> bool:
        """Whether all samples of a simulation are complete."""
        return self._complete[simulation] == 1

    def add(self, simulation: int, step: int) -> None:
        """Marks a sample of this rank as complete."""
        self.add_all(simulation, (step,))

    def add_all(self, simulation: int, added: Sequence[int]) -> None:
        """Marks samples of this rank, given by their time steps, as complete."""
        if self._complete[simulation] or not added:
            return
        if simulation not in self._partial:
            self._partial[simulation] = bytearray(self._time_steps)
            self._missing[simulation] = self._time_steps
        steps = self._partial[simulation]
        for step in added:
            self._missing[simulation] -= not steps[step]
            steps[step] = 1
        if not self._missing[simulation]:
            del self._partial[simulation], self._missing[simulation]
            self._complete[simulation] = 1

    def remove(self, simulation: int, step: int) -> None:
        """Marks a sample as missing."""
        if (simulation, step) not in self:
            return
        if self._complete[simulation]:
            self._complete[simulation] = 0
            self._partial[simulation] = bytearray(b"\1" * self._time_steps)
            self._missing[simulation] = 0
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
        """Restores the simulations of this rank from the `state()` of an earlier server, or from a merged one."""
        known = np.unpackbits(state["complete"])[: len(self._complete)]
        known[wire.owner(np.arange(len(known)), self._ranks) != self._rank] = 0
        self._complete = bytearray(known.tobytes().ljust(len(self._complete), b"\0"))
        steps = np.unpackbits(state["steps"], axis=1, count=self._time_steps)
        for simulation, row in zip(state["partial"].tolist(), steps, strict=True):
            if wire.owner(simulation, self._ranks) == self._rank:
                self._partial[simulation] = bytearray(row.tobytes())
                self._missing[simulation] = self._time_steps - int(row.sum())


def merged_done(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merges the states of all ranks to one that every rank of another number of ranks can restore.

    Args:
        states: Results of `DoneSteps.state` of all ranks, each of which has other simulations.
    """
    return {
        "complete": np.bitwise_or.reduce([state["complete"] for state in states]),
        "partial": np.concatenate([state["partial"] for state in states]),
        "steps": np.concatenate([state["steps"] for state in states]),
    }

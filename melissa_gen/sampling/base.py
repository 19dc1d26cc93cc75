"""What every sampler offers: suggest, ingest, update, state, restore, diagnostics.

`suggest` and `ingest` are the verbs of the gest-api generator standard. One thread owns a sampler;
none of its methods may be called from two threads at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.prior.priors import Prior

__all__ = ["PRIOR", "Evidence", "Proposals", "Sampler", "State", "part_of", "split_state"]

Array = NDArray[np.float64]

# Provenance of a point that came from the prior's share of the mixture.
PRIOR = "prior"

# Names to numpy arrays or JSON values: saved as one npz and one JSON file, never pickled.
State = dict[str, Any]


@dataclass(frozen=True)
class Proposals:
    """Points to simulate, with where they come from.

    Args:
        points: (n, d), physical units, columns in the prior's order.
        log_density: (n,), log of the whole mixture q at each point in physical units, NaN where
            the method does not know it.
        method: n names: "prior", or the adaptive method.
        generation: how often the sampler had learned when it drew them.
        parents: (n,), the simulation that a point was bred from, -1 for none.
    """

    points: Array
    log_density: Array
    method: list[str]
    generation: int
    parents: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True)
class Evidence:
    """What training has found out about one simulation; the newest word on it replaces the last.

    Args:
        simulation: its number.
        parameters: (d,), physical units, columns in the prior's order.
        difficulty: at least 0; ignored where `failed`.
        samples: how many samples stand behind the difficulty.
        failed: the simulation gave up for good: it has no difficulty.
        log_density: log q under which it was drawn, NaN where unknown.
        generation: the generation that proposed it.
    """

    simulation: int
    parameters: Array
    difficulty: float
    samples: int = 1
    failed: bool = False
    log_density: float = float("nan")
    generation: int = 0


@runtime_checkable
class Sampler(Protocol):
    """Chooses what is simulated next.

    A *generation* is one round of learning: it ends when `update` finds new evidence. `suggest`
    calls `update` where evidence is waiting; a server calls it first, in the background, so that
    `suggest` is quick. Neither touches any global random state. A sampler that asks the surrogate
    itself about candidates is also an `Observer`: it is shown a `Probe` before each `update`.
    """

    name: str
    prior: Prior
    generation: int

    def suggest(self, n: int) -> Proposals:
        """Draws n points."""

    def ingest(self, evidence: Sequence[Evidence]) -> None:
        """Takes in evidence, in any order, repeated or late; cheap."""

    def update(self) -> None:
        """Learns from the evidence since the last update; the expensive part."""

    def state(self) -> State:
        """Everything that `restore` needs, generator states included."""

    def restore(self, state: State) -> None:
        """Continues exactly where `state` was taken, in a sampler created alike."""

    def diagnostics(self) -> dict[str, float]:
        """Named finite numbers for the event log."""


def split_state(state: State) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Parts a state in what JSON holds and what an npz file holds; their union restores it."""
    arrays = {key: value for key, value in state.items() if isinstance(value, np.ndarray)}
    return {key: value for key, value in state.items() if key not in arrays}, arrays


def part_of(state: State, prefix: str) -> State:
    """What a state holds under names that begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

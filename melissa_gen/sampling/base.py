"""The base class of all samplers, and the points and evidence that they exchange with training.

`suggest` and `ingest` are the verbs of the gest-api generator standard. A sampler is not thread-safe:
its methods must be called from one thread at a time.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.prior.joint_prior import Prior

if TYPE_CHECKING:
    from melissa_gen.sampling.acquisition.prediction_features import Probe

__all__ = ["PRIOR", "Evidence", "Proposals", "Sampler", "State", "part_of", "split_state"]

Array = NDArray[np.float64]

# Provenance of a point from the prior's share of the mixture.
PRIOR = "prior"

# numpy arrays or JSON values by name; saved as one npz and one JSON file, never pickled.
State = dict[str, Any]


@dataclass(frozen=True)
class Proposals:
    """Points to simulate, with their provenance.

    Args:
        points: (n, d), in physical units, with columns in the order of the prior.
        log_density: (n,), log density of the whole mixture q at each point, in the inverse product of
            the physical units; NaN where unknown.
        method: The provenance of each of the n points: "prior", or the name of the adaptive method.
        generation: Number of times that the sampler had learned before it drew the points.
        parents: (n,), number of the simulation from which a point was derived, -1 for none.
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
    """The difficulty of one simulation as measured in training; newer evidence replaces older.

    Args:
        simulation: Number of the simulation.
        parameters: (d,), in physical units, in the order of the prior.
        difficulty: At least 0; ignored if `failed`.
        samples: Number of samples from which the difficulty was measured.
        failed: Whether the simulation has failed for good; it then has no difficulty.
        log_density: log q with which the point was drawn, NaN if unknown.
        generation: Generation that proposed the point.
        seconds: Run time of the simulation, NaN if unknown.
    """

    simulation: int
    parameters: Array
    difficulty: float
    samples: int = 1
    failed: bool = False
    log_density: float = float("nan")
    generation: int = 0
    seconds: float = float("nan")


class Sampler(ABC):
    """Base class of the samplers: chooses the parameters of the next simulations.

    A *generation* is one round of learning. It ends when `update` finds new evidence. `suggest` calls
    `update` if there is new evidence; a server calls `update` first, in the background, so that
    `suggest` is fast. No method changes the state of a global random number generator.

    A subclass implements `suggest`, `ingest`, `update`, `state` and `restore`. The other methods have
    defaults that suit a sampler without a known density that does not use the surrogate.

    Args:
        name: Name of the method.
        prior: Prior distribution p(λ) of the parameters.

    Attributes:
        name: Name of the method.
        prior: Prior distribution p(λ) of the parameters.
        generation: Number of times that the sampler has learned.
    """

    def __init__(self, name: str, prior: Prior) -> None:
        self.name = name
        self.prior = prior
        self.generation = 0

    @abstractmethod
    def suggest(self, n: int) -> Proposals:
        """Draws n points."""

    @abstractmethod
    def ingest(self, evidence: Sequence[Evidence]) -> None:
        """Adds evidence, which may arrive in any order, repeatedly or late. Must be cheap."""

    @abstractmethod
    def update(self) -> None:
        """Learns from the evidence added since the last update. This is the expensive part."""

    @abstractmethod
    def state(self) -> State:
        """Returns everything that `restore` needs, including the states of random generators."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Continues exactly from a saved state, in a sampler created with the same arguments."""

    def log_density(self, points: Array) -> Array:
        """Returns the log density of the distribution that `suggest` draws from now.

        Args:
            points: (n, d), physical units.

        Returns:
            (n,), in the inverse product of the physical units; NaN where unknown (the default).
        """
        return np.full(len(points), np.nan)

    @property
    def uses_surrogate(self) -> bool:
        """Whether `observe` has an effect; if not, the caller need not create a probe."""
        return False

    @property
    def uses_run_times(self) -> bool:
        """Whether the run times of finished simulations have an effect; if not, they need not be evidence."""
        return False

    def observe(self, probe: "Probe") -> None:
        """Gives the sampler a snapshot of the surrogate, used from the next `update` on.

        A probe is not part of the state: after `restore`, pass one again.

        Args:
            probe: The surrogate at this moment, evaluated at points in physical units.
        """

    def diagnostics(self) -> dict[str, float]:
        """Returns named finite numbers for the event log."""
        return {}


def split_state(state: State) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Splits a state into JSON values and arrays; their union restores it."""
    arrays = {key: value for key, value in state.items() if isinstance(value, np.ndarray)}
    return {key: value for key, value in state.items() if key not in arrays}, arrays


def part_of(state: State, prefix: str) -> State:
    """Returns the entries whose names begin with `prefix`, with the prefix removed."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

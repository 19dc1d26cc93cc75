"""Proposals for simulations, and the interface through which the control machine obtains them.

A run with a sampler uses `ProposalQueue`. A run without one, such as the generation of a data set or a conformance
check, uses `FixedDesign`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from melissa_gen.server.coordination.ledger import SimulationRecord

__all__ = ["Proposal", "ProposalSource", "SamplerFailure", "assignment"]


class Proposal(NamedTuple):
    """A point to simulate and how it was chosen.

    Attributes:
        parameters: Parameter values in physical units, in the study's order.
        method: The rule that drew the point.
        generation: Generation of the sampler that drew it.
        log_density: Logarithm of the proposal density at the point, or None if it is unknown.
        weight: Importance weight of the simulation's samples in training.
    """

    parameters: tuple[float, ...]
    method: str
    generation: int = 0
    log_density: float | None = None
    weight: float = 1.0


class SamplerFailure(NamedTuple):
    """An exception of the sampler.

    Attributes:
        reason: One sentence.
        traceback: Where it was raised.
    """

    reason: str
    traceback: str


class ProposalSource(Protocol):
    """Interface of a source of points, used by the control machine and its thread; no method may block.

    Attributes:
        failure: The newest failure of the sampler, or None; draws from the prior replaced its generation.
    """

    failure: SamplerFailure | None

    def statistics(self) -> Mapping[str, Any]:
        """Returns the figures of the sampler for the status."""

    def take(self) -> Proposal:
        """Returns the next point; the machine calls this at most once per planned simulation."""

    def register(self, record: SimulationRecord, /) -> None:
        """Announces a simulation that a client solves, that has finished, or that was given up, by its record."""

    def add_losses(self, losses: Sequence[Sequence[float]], /) -> None:
        """Adds first-pass losses, each (simulation, loss, excess over the batch's mean)."""


def assignment(record: SimulationRecord) -> dict[str, Any]:
    """Returns the message with the parameters of a simulation for the server ranks."""
    return {
        "type": "assigned",
        "simulation": record.simulation,
        "parameters": [float(value) for value in record.parameters],
        "weight": record.weight,
        "log_density": record.log_density,
    }

"""Settings of published methods by name, for the comparison of samplers."""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["SETTINGS", "Setting"]


@dataclass(frozen=True)
class Setting:
    """A method with its arguments and the size of its generations.

    Args:
        method: name of the method.
        arguments: of the method.
        per_round: simulations of a generation; None: that of the problem.
    """

    method: str
    arguments: dict[str, Any] = field(default_factory=dict)
    per_round: int | None = None


SETTINGS = {
    # The public settings of its authors: a share of children from 0 to 0.7, the signal delta_loss, and generations as
    # large as the reservoir, which holds 20 simulations here.
    "breed_published": Setting(
        "breed", {"share_start": 0.0, "share_end": 0.7, "capacity_simulations": 20}, per_round=20
    ),
    # The published width of the network and share, from 0 to 0.7 over four generations. Targets are drawn in proportion
    # to the square of the error, not to the error, and the context is its logarithm.
    "ogas_published": Setting("conditional_diffusion", {"hidden": 1024}, per_round=20),
}

"""Totals of the samples that a policy has stored, drawn and withdrawn."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["LOST_WITH_SERVER", "Totals"]

LOST_WITH_SERVER = "lost with an earlier server"
"""Reason for withdrawing the samples that were in memory when a server ended before its study."""


@dataclass
class Totals:
    """The invariant is stored = trained + unseen samples in memory + sum of withdrawn.

    Attributes:
        stored: Samples accepted.
        trained: Samples drawn at least once.
        withdrawn: Reason to number of samples that were removed without a draw; no zeros.
        draws: Batches.
        samples_drawn: Samples in all batches, with repetitions.
    """

    stored: int = 0
    trained: int = 0
    withdrawn: dict[str, int] = field(default_factory=dict)
    draws: int = 0
    samples_drawn: int = 0

    def withdraw(self, reason: str, count: int) -> None:
        """Counts withdrawn samples; a negative number was not withdrawn after all."""
        total = self.withdrawn.pop(reason, 0) + count
        if total:
            self.withdrawn[reason] = total

    def as_dict(self) -> dict[str, Any]:
        """Returns the totals by name, as copies."""
        return vars(self) | {"withdrawn": dict(self.withdrawn)}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continues from the result of `as_dict`, which may have further keys."""
        for name in ("stored", "trained", "draws", "samples_drawn"):
            setattr(self, name, int(saved[name]))
        self.withdrawn = {str(k): int(v) for k, v in saved["withdrawn"].items()}

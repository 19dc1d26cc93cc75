"""Whether the numbers of a run add up: every sample produced is found again, memory kept its word."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from melissa_gen.report.quantities import UNKNOWN, count
from melissa_gen.run_dir.events import number_at

__all__ = ["BALANCES", "Balance", "adds_up", "balances"]

BALANCES = (
    ("produced", ("received", "lost")),
    ("received", ("stored", "duplicate", "rejected")),
    ("stored", ("trained", "withdrawn")),
)


@dataclass(frozen=True)
class Balance:
    """One equation of the accounting.

    Attributes:
        total: What is split up, such as "produced".
        parts: What it must be the sum of.
        left: The number on the left.
        right: The numbers on the right, one for each part.
    """

    total: str
    parts: tuple[str, ...]
    left: float
    right: tuple[float, ...]

    @property
    def known(self) -> bool:
        """Whether every number is there."""
        return math.isfinite(self.left) and all(map(math.isfinite, self.right))

    @property
    def holds(self) -> bool:
        """Whether the two sides are equal."""
        return self.known and self.left == sum(self.right)

    @property
    def equation(self) -> str:
        """The equation in words: "produced = received + lost"."""
        return f"{self.total} = {' + '.join(self.parts)}"

    @property
    def figures(self) -> str:
        """The equation in numbers, with the sign that is true of it."""
        sign = "=" if self.holds or not self.known else "≠"
        return f"{count(self.left)} {sign} {' + '.join(map(count, self.right))}"

    @property
    def difference(self) -> str:
        """How many samples are missing (+) or too many (-) on the right."""
        return f"{self.left - sum(self.right):+,.0f}" if self.known else UNKNOWN


def balances(samples: Mapping[str, Any]) -> list[Balance]:
    """Returns the three equations of the accounting for the `samples` of a summary or a status.

    A run without a trainer records samples instead of training on them.
    """
    recorded = "recorded" in samples
    equations = [
        (total, tuple("recorded" if p == "trained" and recorded else p for p in parts))
        for total, parts in BALANCES
    ]
    return [
        Balance(
            total,
            parts,
            number_at(samples, total),
            tuple(number_at(samples, part) for part in parts),
        )
        for total, parts in equations
    ]


def adds_up(samples: Mapping[str, Any]) -> bool:
    """Returns whether all three equations hold."""
    return all(balance.holds for balance in balances(samples))

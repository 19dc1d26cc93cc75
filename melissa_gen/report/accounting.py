"""Checks the sample accounting of a run: every sample that was produced must be accounted for."""

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
        total: Name of the left-hand side, such as "produced".
        parts: Names of the terms on the right-hand side.
        left: Value of the left-hand side.
        right: Value of each term on the right-hand side.
    """

    total: str
    parts: tuple[str, ...]
    left: float
    right: tuple[float, ...]

    @property
    def known(self) -> bool:
        """Whether all values are known."""
        return math.isfinite(self.left) and all(map(math.isfinite, self.right))

    @property
    def holds(self) -> bool:
        """Whether all values are known and the two sides are equal."""
        return self.known and self.left == sum(self.right)

    @property
    def equation(self) -> str:
        """The equation with names: "produced = received + lost"."""
        return f"{self.total} = {' + '.join(self.parts)}"

    @property
    def figures(self) -> str:
        """The equation with values; "≠" instead of "=" if it does not hold."""
        sign = "=" if self.holds or not self.known else "≠"
        return f"{count(self.left)} {sign} {' + '.join(map(count, self.right))}"

    @property
    def difference(self) -> str:
        """Left-hand side minus right-hand side: samples missing (+) or in excess (-)."""
        return f"{self.left - sum(self.right):+,.0f}" if self.known else UNKNOWN


def balances(samples: Mapping[str, Any]) -> list[Balance]:
    """Returns the three equations of the sample accounting.

    In a run without a trainer, "recorded" replaces "trained".

    Args:
        samples: The `samples` section of a summary or a status.
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

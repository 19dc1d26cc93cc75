"""The accuracy at which a study ends before all its simulations have run."""

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["Goal", "useless"]


class Goal:
    """Compares the errors of each validation, and the bounds of the error, with `training.until`.

    Args:
        limits: Name of a statistic, such as `nrmse.p99`, to its largest value.
        patience: Number of measurements in a row that must be within all limits.

    Attributes:
        reached: Whether the goal was reached.

    Example:
        >>> goal = Goal({"nrmse.p99": 0.02}, patience=1)
        >>> goal.check({"nrmse.p99": 0.01})
        'training.until is reached: nrmse.p99 is 0.01, at most 0.02 was wanted'
    """

    def __init__(self, limits: Mapping[str, float], patience: int) -> None:
        self._limits, self._patience = dict(limits), patience
        self._in_a_row = 0
        self._last: dict[str, float] = {}
        self.reached = False

    def check(self, measured: Mapping[str, float]) -> str | None:
        """Takes the statistics of a measurement; returns a sentence the first time that the goal is reached.

        Args:
            measured: Name of each statistic to its value.
        """
        if not self._limits or self.reached:
            return None
        self._last = {name: measured.get(name, math.nan) for name in self._limits}
        within = all(self._last[name] <= limit for name, limit in self._limits.items())
        self._in_a_row = self._in_a_row + 1 if within else 0
        self.reached = self._in_a_row >= self._patience
        return f"training.until is reached: {self._figures()}" if self.reached else None

    @property
    def missed(self) -> str | None:
        """A sentence if there is a goal that was not reached, else None."""
        if not self._limits or self.reached:
            return None
        return f"training.until was not reached: {self._figures()}"

    def state(self) -> dict[str, Any]:
        """Returns the state for a checkpoint."""
        return {"limits": self._limits, "in_a_row": self._in_a_row}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from the `state()` of an earlier server.

        Its validations do not count for other limits.
        """
        if state["limits"] == self._limits:
            self._in_a_row = state["in_a_row"]

    def _figures(self) -> str:
        parts = [
            f"{name} is {self._last.get(name, math.nan):.3g}, at most {limit:g} was wanted"
            for name, limit in self._limits.items()
        ]
        found = "; ".join(parts)
        return f"{found} in {self._patience} measurements in a row" if self._patience > 1 else found


def useless(error: float, error_of_mean: float, name: str) -> str:
    """Returns a warning if a surrogate predicts no better than the mean of each field; else "".

    Args:
        error: Final mean validation error.
        error_of_mean: The same of predicting the mean of each field.
        name: Name of the error.
    """
    # An error that is NaN is not below anything.
    if error < error_of_mean:
        return ""
    return (
        f"the final validation error (mean {name.upper()} {error:.3g}) is not below that of predicting the mean of "
        f"each field ({error_of_mean:.3g}): the surrogate has learned nothing of use"
    )

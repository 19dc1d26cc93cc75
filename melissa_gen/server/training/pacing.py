"""Decides when all ranks take a training step, and how many samples each may store.

Pure: without threads, clocks and collectives, so that a test drives reservoirs and pacing as one model.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

from melissa_gen.reservoir import Source

__all__ = ["Pacing", "StepDecision", "Supply"]


class Supply(NamedTuple):
    """The samples of one rank before a step, as integers; summed over all ranks for the common decision.

    Attributes:
        ready: 1 if a full batch can be drawn, or if no data is left.
        drained: 1 if no data is left and no more will come.
        blocked: 1 if a sample waits because the reservoir has no room for it.
        available: Number of samples that a step would draw.
        accepted: Number of samples stored since this server started.
        closed: 1 if no more samples will come.
    """

    ready: int
    drained: int
    blocked: int
    available: int
    accepted: int
    closed: int

    @classmethod
    def of(cls, reservoir: Source, batch_size: int, stored_before: int) -> Self:
        """Returns the supply of a rank.

        Args:
            reservoir: Its reservoir.
            batch_size: Samples per batch.
            stored_before: Samples stored before this server started.
        """
        stock = reservoir.stock(batch_size)
        return cls(
            ready=stock.ready or stock.drained,
            drained=stock.drained,
            blocked=stock.blocked and not stock.drained,
            available=min(stock.items, batch_size),
            accepted=stock.accepted - stored_before,
            closed=stock.closed,
        )


@dataclass(frozen=True)
class StepDecision:
    """The decision of all ranks on the next step.

    Attributes:
        step: Whether a step is taken.
        over: Whether no rank has data left.
        ahead: Whether the ranks wait because they have drawn each sample as often as allowed.
        total: Number of samples that all ranks draw.
    """

    step: bool
    over: bool
    ahead: bool
    total: int


class Pacing:
    """Keeps the number of draws per stored sample between two bounds, as averages over all ranks.

    Above the upper bound, the ranks wait for new samples. Below the lower bound, the reservoirs accept no samples, so
    that the clients wait. Both never wait for each other: a rank that has no room is drawn from even above the upper
    bound, and even if other ranks are below their watermark.

    Args:
        ranks: Number of server ranks.
        at_least: Lower bound; 1 sets no bound.
        at_most: Upper bound; None sets no bound.
        slack: Number of samples per rank that are accepted before any is drawn; at least the watermark, so that the
            lower bound never keeps a rank from starting.
        items: Number of items that can be drawn for each sample: 1, or fewer if an item is a window of several time
            steps. The bounds then hold for the draws of each window.
    """

    def __init__(
        self,
        ranks: int,
        at_least: float,
        at_most: float | None,
        slack: int,
        items: float = 1.0,
    ) -> None:
        self._ranks, self._slack = ranks, slack
        self._bounded_below = at_least > 1.0
        self._at_least = items * at_least
        self._at_most = None if at_most is None else items * at_most

    def turn(self, total: Supply, drawn: int) -> StepDecision:
        """Returns the decision on the next step.

        Args:
            total: The supply, summed over all ranks.
            drawn: Number of samples that all ranks have drawn since this server started.
        """
        # A closed rank receives no new samples: the remaining ones are drawn without a bound.
        ahead = (
            self._at_most is not None
            and drawn >= self._at_most * total.accepted
            and total.closed == 0
        )
        # A blocked rank withholds credit from clients whose samples another rank may be waiting for.
        due = total.blocked > 0 or (total.ready == self._ranks and not ahead)
        step = due and total.available > 0
        return StepDecision(step, total.drained == self._ranks, ahead and not step, total.available)

    def allowance(self, accepted: int, total: Supply, drawn: int) -> int | None:
        """Returns the number of samples that a rank may have stored since this server started; None for any number.

        Args:
            accepted: Number of samples that the rank has stored since this server started.
            total: The supply, summed over all ranks.
            drawn: Number of samples that all ranks have drawn since this server started.
        """
        if not self._bounded_below:
            return None
        earned = int(drawn / self._at_least) + self._ranks * self._slack
        return accepted + max(earned - total.accepted, 0) // self._ranks

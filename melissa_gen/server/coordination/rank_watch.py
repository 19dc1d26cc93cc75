"""Notices server ranks that are silent, or that do not move while all others wait for them."""

from collections.abc import Hashable
from dataclasses import dataclass

from melissa_gen.server.coordination.events import (
    FINISHING,
    JOINING,
    PREPARING,
    SAVING,
    TRAINING,
    VALIDATING,
)

__all__ = ["RankWatch"]


@dataclass
class _Rank:
    """The last report of a rank.

    Attributes:
        heard: When it arrived.
        turns: Steps of the loop of all ranks so far.
        progress: What changes with each piece of work that the rank completes.
        activity: What the rank does.
        moved: When its progress last changed.
    """

    heard: float
    turns: int
    progress: Hashable
    activity: str
    moved: float


class RankWatch:
    """Watches the reports of all server ranks; a plain state machine without a clock.

    A rank reports several times a second from its ingest. A report that is missing means that one of its processes is
    stopped, or that its node does not answer. All ranks take the steps of their loop together: a rank that does
    not move stops all of them. A validation or a checkpoint within a step consists of pieces, such as the prediction of
    some time steps. As long as a rank of those that are behind completes pieces, the others wait for a good reason.

    Args:
        silence: Seconds without a report after which a rank counts as lost.
        patience: Seconds without progress after which a rank counts as stuck.
    """

    def __init__(self, silence: float, patience: float) -> None:
        self._silence, self._patience = silence, patience
        self._ranks: dict[int, _Rank] = {}

    def report(
        self, rank: int, turns: int, pieces: int, activity: str, now: float, *, last: bool
    ) -> None:
        """Takes a report.

        Args:
            rank: The rank.
            turns: Steps of its loop so far; 0 while it prepares its training, and on a single rank without a trainer.
            pieces: Pieces of work within these steps that the rank has begun.
            activity: What the rank does; the values are in `coordination.events`.
            now: Monotonic seconds.
            last: Whether the rank sends no more reports.
        """
        if last:
            self._ranks.pop(rank, None)
            return
        known, progress = self._ranks.get(rank), (turns, pieces)
        moved = now if known is None or known.progress != progress else known.moved
        self._ranks[rank] = _Rank(now, turns, progress, activity, moved)

    def complaint(self, now: float) -> str | None:
        """Returns a sentence that names the rank because of which the server can't continue, or None."""
        for number, rank in sorted(self._ranks.items()):
            silence = now - rank.heard
            if silence > self._silence:
                return (
                    f"rank {number} of the server has been silent for {silence:.0f} s: its process is stopped, or "
                    "its node does not answer (server.heartbeat_timeout)"
                )
        moving = {
            number: rank
            for number, rank in self._ranks.items()
            if rank.turns or rank.activity == PREPARING
        }
        if not moving:
            return None
        least = min(rank.turns for rank in moving.values())
        behind = {number: rank for number, rank in moving.items() if rank.turns == least}
        idle = min(now - rank.moved for rank in behind.values())
        if idle <= self._patience:
            return None
        working = {number: rank for number, rank in behind.items() if rank.activity != JOINING}
        return self._sentence(working or behind, moving, idle)

    def _sentence(self, stuck: dict[int, _Rank], moving: dict[int, _Rank], idle: float) -> str:
        names = ", ".join(map(str, sorted(stuck)))
        who = f"rank {names} of the server" if len(stuck) == 1 else f"ranks {names} of the server"
        waiting = ", ".join(map(str, sorted(moving.keys() - stuck.keys())))
        wait = f", and ranks {waiting} wait for it" if waiting else ""
        first = stuck[min(stuck)]
        return (
            f"{who} made no progress for {idle:.0f} s in step {first.turns} of the loop of all ranks"
            f"{_ACTIVITIES.get(first.activity, '')}{wait} (server.progress_timeout)"
        )


_ACTIVITIES = {
    TRAINING: ", in a batch",
    VALIDATING: ", in a validation",
    SAVING: ", while it writes a checkpoint",
    FINISHING: ", while it writes its results",
    PREPARING: ", while it prepares its training",
}

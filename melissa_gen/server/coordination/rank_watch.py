"""Notices server ranks that are silent, or that do not move while all others wait for them."""

from dataclasses import dataclass

__all__ = ["RankWatch"]


@dataclass
class _Rank:
    heard: float
    turns: int
    moved: float


class RankWatch:
    """Watches the reports of all server ranks; a plain state machine without a clock.

    A rank reports several times a second from its ingest thread. A report that is missing means that the process is
    stopped, or that its node does not answer. `turns` counts the steps of its training loop, which all ranks take
    together: a rank that does not move stops all of them.

    Args:
        silence: Seconds without a report after which a rank counts as lost.
        stall: Seconds in one step after which a rank counts as stuck.
    """

    def __init__(self, silence: float, stall: float) -> None:
        self._silence, self._stall = silence, stall
        self._ranks: dict[int, _Rank] = {}

    def report(self, rank: int, turns: int, now: float, *, last: bool) -> None:
        """Takes a report.

        Args:
            rank: The rank.
            turns: Steps of its training loop so far; 0 before the first, and in a run without a trainer.
            now: Monotonic seconds.
            last: Whether the rank sends no more reports.
        """
        if last:
            self._ranks.pop(rank, None)
            return
        known = self._ranks.get(rank)
        moved = now if known is None or known.turns != turns else known.moved
        self._ranks[rank] = _Rank(now, turns, moved)

    def complaint(self, now: float) -> str | None:
        """Returns a sentence that names the rank because of which the server can't continue, or None."""
        for number, rank in sorted(self._ranks.items()):
            silence = now - rank.heard
            if silence > self._silence:
                return (
                    f"rank {number} of the server has been silent for {silence:.0f} s: its process is stopped, or "
                    "its node does not answer (server.heartbeat_timeout)"
                )
        training = {number: rank for number, rank in self._ranks.items() if rank.turns}
        if not training:
            return None
        least = min(rank.turns for rank in training.values())
        behind = [number for number, rank in sorted(training.items()) if rank.turns == least]
        stuck = min(now - training[number].moved for number in behind)
        if stuck <= self._stall:
            return None
        names = ", ".join(map(str, behind))
        who = f"rank {names} of the server" if len(behind) == 1 else f"ranks {names} of the server"
        waiting = sorted(training.keys() - set(behind))
        wait = f", and ranks {', '.join(map(str, waiting))} wait for it" if waiting else ""
        return (
            f"{who} made no progress for {stuck:.0f} s in step {least} of the training loop{wait} "
            "(server.stall_timeout)"
        )

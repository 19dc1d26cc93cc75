"""What the ingest of each server rank and the clients spent their time on, as shares of the last second."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from melissa_gen.protocol import wire
from melissa_gen.server.stopwatch import INGEST_PARTS

__all__ = ["TimeShares"]

_WAITS = ("waiting", "blocked")
_CLIENT_PARTS = ("solving", "waiting_for_credit", "waiting_for_parameters", "copying", "sending")


class TimeShares:
    """Turns the seconds that a process has counted since its start into shares of the time since the last call.

    The shares are those of the time by the clock of the process itself, since its messages arrive at other moments than
    those at which a status is written.

    Args:
        between: What a client does between its calls: `solving`, `reading` recorded data, or None if there is nothing
            to solve and the client only asks for parameters.
    """

    def __init__(self, between: str | None = "solving") -> None:
        self._between = between
        self._ranks: dict[int, dict[str, float]] = {}
        # Of each job its seconds in the newest heartbeat, and its shares of the time since the one before.
        self._jobs: dict[str, tuple[dict[str, float], dict[str, float]]] = {}

    def ingest(self, reports: Iterable[Mapping[str, Any] | None]) -> dict[str, float]:
        """Returns the shares of the rank whose ingest was the busiest one; empty if no rank says them.

        Args:
            reports: The newest report of each rank.

        Returns:
            The shares of the parts of its time, `rank`, and `megabytes_per_second`, the values that it received.
        """
        found: list[dict[str, float]] = []
        for report in reports:
            if report is None or not {*INGEST_PARTS, "drawing"} <= report.get("ingest", {}).keys():
                continue
            now = {**report["ingest"], "bytes": float(report["counters"]["bytes"])}
            before = self._ranks.get(report["rank"], now)
            self._ranks[report["rank"]] = now
            spent = {key: now[key] - before.get(key, 0.0) for key in now}
            clock = math.fsum(spent[part] for part in INGEST_PARTS)
            if clock > 0:
                shares = {part: spent[part] / clock for part in (*INGEST_PARTS, "drawing")}
                rate = spent["bytes"] / 1e6 / clock
                found.append(
                    {"rank": report["rank"], **_one_after_the_other(shares)}
                    | {"megabytes_per_second": rate}
                )
        return max(found, key=lambda one: -one["waiting"] - one["blocked"], default={})

    def clients(self, beats: Iterable[wire.Alive]) -> dict[str, float]:
        """Returns the mean shares over the clients that say them; empty if none does.

        A client of which there is no new heartbeat counts with its shares before the last one.

        Args:
            beats: The newest heartbeat of each client job that is alive.
        """
        # Only jobs that are alive are kept.
        self._jobs = {beat.job: self._client(beat) for beat in beats if _seconds(beat)}
        found = [shares for _, shares in self._jobs.values() if shares]
        if not found:
            return {}
        means = {part: sum(one[part] for one in found) / len(found) for part in _CLIENT_PARTS}
        solving = means.pop("solving")
        return means if self._between is None else {self._between: solving} | means

    def _client(self, beat: wire.Alive) -> tuple[dict[str, float], dict[str, float]]:
        """Returns the seconds of a client, and its shares of the time since its heartbeat before."""
        now = _seconds(beat)
        before, shares = self._jobs.get(beat.job, (now, {}))
        spent = {key: now[key] - before[key] for key in now}
        if spent["elapsed"] > 0:
            shares = {
                part: min(max(spent[part] / spent["elapsed"], 0.0), 1.0) for part in _CLIENT_PARTS
            }
        return now, shares


def _one_after_the_other(shares: dict[str, float]) -> dict[str, float]:
    """Takes the time in which another thread of the process has selected batches from that of waiting.

    What it did while the ingest thread worked counts as the work of that thread, so that the sum is 1.
    """
    left = shares["drawing"]
    for wait in _WAITS:
        taken = min(left, shares[wait])
        shares[wait] -= taken
        left -= taken
    shares["drawing"] -= left
    return shares


def _seconds(beat: wire.Alive) -> dict[str, float]:
    """Returns the seconds of a client; empty if it does not say them, or says what is not a number."""
    if len(beat.spent) < 4:
        return {}
    elapsed, solving, copying, sending = beat.spent[:4]
    found = {
        "elapsed": elapsed,
        "solving": solving,
        "waiting_for_credit": beat.credit_seconds,
        "waiting_for_parameters": beat.next_seconds,
        "copying": copying,
        "sending": sending,
    }
    return found if all(math.isfinite(value) for value in found.values()) else {}

"""Recognizes faults that are the same in each simulation. Pure: no sockets, threads or clocks."""

import re
from collections.abc import Hashable

from melissa_gen.exit_status import was_ended_from_outside
from melissa_gen.protocol.failures import Failure

__all__ = ["RepeatedFaults"]

_LATER = 10
"""After a simulation has finished, a fault must strike this many times as many simulations before the run fails."""
_VARYING = frozenset({"simulation", "seconds", "count", "place"})
"""Values of a failure that may differ between two faults with the same cause."""
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


class RepeatedFaults:
    """Counts simulations that have failed in the same way in a row.

    Two faults are the same if they have the same code and values, for example the same exit status, field and time
    step. Numbers in texts, such as the last line of a log, may differ.

    Args:
        limit: Number of simulations after which the run fails if none has finished; ten times as many later.
        finished: Whether a simulation has finished already.
    """

    def __init__(self, limit: int, *, finished: bool = False) -> None:
        self._limit, self._any_finished = limit, finished
        # Simulations by fault since the last one that finished.
        self._simulations: dict[Hashable, set[int]] = {}

    def finished(self) -> None:
        """Records that a simulation has finished."""
        self._any_finished = True
        self._simulations.clear()

    def add(self, simulation: int, failure: Failure) -> str | None:
        """Records the fault of a simulation; returns the reason why the run must fail, or None."""
        fault = _kind(failure)
        if fault is None:
            return None
        found = self._simulations.setdefault(fault, set())
        found.add(simulation)
        limit = self._limit * (_LATER if self._any_finished else 1)
        if len(found) < limit:
            return None
        when = "in a row" if self._any_finished else "and none has finished"
        return (
            f"{len(found)} simulations have failed in the same way {when}, so the others would too "
            f"(simulation.identical_failures is {self._limit}); the last one, simulation {simulation}: {failure}"
        )

    def permanent(self, simulation: int, failure: Failure) -> bool:
        """Whether another attempt is useless: another simulation has failed in the same way, and none has finished."""
        fault = _kind(failure)
        others = self._simulations.get(fault, set()) - {simulation}
        return fault is not None and not self._any_finished and bool(others)


def _kind(failure: Failure) -> Hashable | None:
    """Returns what two faults with the same cause have in common; None if the cause may lie outside the solver."""
    status, number = failure.values.get("exit_status"), failure.values.get("signal")
    # A client can send any values.
    ends = (status, -number if isinstance(number, int) else None)
    from_outside = any(isinstance(one, int) and was_ended_from_outside(one) for one in ends)
    if failure.code == "lost_steps" or from_outside:
        return None
    values = {name: value for name, value in failure.values.items() if name not in _VARYING}
    texts = {
        name: _NUMBER.sub("#", value) if isinstance(value, str) else str(value)
        for name, value in values.items()
    }
    return failure.code, tuple(sorted(texts.items()))

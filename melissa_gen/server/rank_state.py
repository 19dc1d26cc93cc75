"""What ingest and the consumer of the samples of a rank tell each other."""

import threading
from dataclasses import dataclass, field
from typing import NamedTuple

from melissa_gen.server.coordination.events import WAITING
from melissa_gen.server.ingest.assignment import Assignment

__all__ = ["RankState", "SavedPart"]


class SavedPart(NamedTuple):
    """The part of this rank in the last checkpoint.

    Attributes:
        number: Number of the checkpoint since the start of the server.
        usable: Whether the state of the rank was written.
        problem: What could not be written, as a sentence, or "".
    """

    number: int = 0
    usable: bool = True
    problem: str = ""


@dataclass
class RankState:
    """State shared by the threads of one rank; each field is written by one thread only."""

    assignments: dict[int, Assignment] = field(default_factory=dict)
    training: dict[str, float] = field(default_factory=dict)
    activity: str = WAITING
    """What the consumer of the samples does; the values are in `coordination.events`."""
    turns: int = 0
    """Steps of the loop of the consumer, which all ranks take together."""
    pieces: int = 0
    """Pieces of work within these steps, such as the prediction of some time steps in a validation."""
    stop_reason: str | None = None
    reception_over: bool = False
    saved: SavedPart = field(default_factory=SavedPart)
    error: BaseException | None = None
    drawing_seconds: float = 0.0
    """Seconds in which the ingest process has selected batches for the trainer."""
    _first_pass: list[tuple[int, float, float]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin_turn(self) -> None:
        """Records that the consumer begins a step of its loop (consumer's thread)."""
        self.turns += 1

    def begin_piece(self, activity: str) -> None:
        """Records that the consumer begins a piece of work (consumer's thread)."""
        self.activity = activity
        self.pieces += 1

    def now(self, activity: str) -> None:
        """Records what the consumer does (consumer's thread)."""
        self.activity = activity

    def publish(self, training: dict[str, float]) -> None:
        """Records the figures of the training (consumer's thread)."""
        self.training = training

    def report_saved(self, part: SavedPart) -> None:
        """Records what the last checkpoint holds of this rank (checkpoint's thread)."""
        self.saved = part

    def add_first_pass(self, losses: list[tuple[int, float, float]]) -> None:
        """Adds first-pass losses, as (simulation, loss, excess over the batch)."""
        with self._lock:
            self._first_pass += losses

    def take_first_pass(self) -> list[tuple[int, float, float]]:
        """Returns the first-pass losses added since the last call."""
        with self._lock:
            taken, self._first_pass = self._first_pass, []
        return taken

    def refresh(self) -> None:
        """Reads the newest values of the other side, if that is another process (both sides)."""

    def frozen(self) -> bool:
        """Whether the consumer is another process, which does not run (ingest thread)."""
        return False

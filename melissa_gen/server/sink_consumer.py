"""Consumes the stream without a trainer: data sets, checks, and studies without a surrogate; does not import torch."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from melissa_gen.builders.dataset import dataset_writer
from melissa_gen.builders.fields import field_specs, input_specs
from melissa_gen.builders.memory import staging_slots
from melissa_gen.errors import DataError, RunError
from melissa_gen.reservoir import SlotStore
from melissa_gen.server.collectives import Collectives, SingleRank
from melissa_gen.server.consumer import Consumer, Hooks
from melissa_gen.server.coordination.events import WAITING
from melissa_gen.server.rank_state import RankState
from melissa_gen.server.setup import RankSetup
from melissa_gen.sinks import ConformanceSink, DatasetSink, PassingSink, SideSink, StreamSink

__all__ = ["StreamConsumer", "stream_sink"]

_POLL_SECONDS = 0.1


class StreamConsumer(Consumer):
    """Waits while ingest passes all samples to a sink that uses them as they arrive.

    Several ranks tell each other at short intervals how far they are, so that they end together, and begin a checkpoint
    together.

    Args:
        sink: The sink of this rank.
        checkpoint_every: Seconds between checkpoints.
        sides: Side sinks that are the only use of the samples; the study fails once all have ended.
        collectives: Communication with the other ranks; default: there are none.
        rank: This rank.
    """

    def __init__(
        self,
        sink: StreamSink,
        checkpoint_every: float,
        sides: Sequence[SideSink] = (),
        collectives: Collectives | None = None,
        rank: int = 0,
    ) -> None:
        self.sink: StreamSink = sink
        self.shared = RankState()
        self.collectives = collectives or SingleRank()
        self._several = collectives is not None
        self._every, self._sides, self._rank = checkpoint_every, sides, rank
        self._failures: dict[str, str] = {}
        self._total = 0

    def attach(self, hooks: Hooks) -> None:
        """Stores the hooks."""
        self._hooks = hooks

    def run(self) -> str | None:
        """Waits until reception has ended on all ranks, and saves checkpoints at the given interval."""
        saved = time.monotonic()
        while True:
            closed = self.sink.wait_closed(_POLL_SECONDS)
            if self._several:
                # From here on, the control process notices a rank that does not move while the others wait for it.
                self.shared.begin_turn()
            due = time.monotonic() - saved > self._every and self._hooks.may_checkpoint()
            ranks = self.collectives.gather(
                {
                    "closed": closed,
                    "problem": self._problem(),
                    "failures": {one.name: one.failure for one in self._sides if one.failure},
                    "stopped": self.shared.stop_reason,
                    "recorded": self.sink.recorded,
                    "due": due,
                }
            )
            self._total = sum(one["recorded"] for one in ranks)
            for one in reversed(ranks):
                self._failures |= one["failures"]
            problem = _first(ranks, "problem") or self.flaw
            if problem is not None:
                self._hooks.fail(problem)
                return problem
            stopped = _first(ranks, "stopped")
            if stopped is not None or all(one["closed"] for one in ranks):
                return stopped
            if ranks[0]["due"] and self._total:
                saved = time.monotonic()
                self._hooks.checkpoint()
                # It is written on another thread. The watchdog takes every other activity for work.
                self.shared.now(WAITING)

    def _problem(self) -> str | None:
        """Returns why ingest has ended, if the user can mend it.

        Raises:
            RunError: Ingest has ended for another reason.
        """
        error = self.shared.error
        # The user can fix a full disk or a damaged file, so one sentence without a traceback is sufficient.
        if error is None or isinstance(error, DataError):
            return None if error is None else str(error)
        where = f" of rank {self._rank}" if self._several else ""
        message = f"the ingest thread{where} failed: {error}"
        raise RunError(message) from error

    @property
    def progress(self) -> int:
        """Number of samples that all ranks have used, as far as this rank knows."""
        return max(self._total, self.sink.recorded)

    def state(self) -> dict[str, Any]:
        """Returns an empty state: ingest saves the state of the sink."""
        return {}

    def restore(self, state: Mapping[str, Any], folder: Path, shared: Mapping[str, Any]) -> None:
        """Does nothing: the sink is restored before ingest starts."""

    def sync(self) -> None:
        """Waits until what the sink has written is on disk."""
        self.sink.sync()

    def close(self, *, complete: bool) -> None:
        """Ends the use of the stream; a file that can't be completed fails the study."""
        try:
            self.sink.finish(complete=complete)
        except DataError as error:
            self._hooks.fail(str(error))

    def summary(self) -> dict[str, Any]:
        """Returns the sections of the sink."""
        return self.sink.summary()

    @property
    def flaw(self) -> str | None:
        """Why all side sinks have ended, each on one rank at least, if they are the only use of the samples."""
        ended = self._failures | {one.name: one.failure for one in self._sides if one.failure}
        if not self._sides or any(side.name not in ended for side in self._sides):
            return None
        return "; ".join(f"{side.name} has ended: {ended[side.name]}" for side in self._sides)


def _first(ranks: Sequence[Mapping[str, Any]], key: str) -> str | None:
    """Returns the first value that is not None."""
    return next((one[key] for one in ranks if one[key] is not None), None)


def stream_sink(setup: RankSetup, *, resume: bool) -> StreamSink:
    """Builds the sink of a run without a trainer.

    Args:
        setup: The study and the use of its samples.
        resume: Whether an earlier server has begun the file.

    Raises:
        DataError: The data set file can't be written, or can't be continued.
    """
    study, purpose = setup.study, setup.purpose
    store = SlotStore(
        field_specs(study.simulation),
        staging_slots(study),
        0,
        input_specs=input_specs(study.simulation),
    )
    output = Path(purpose.output)
    if purpose.kind == "training":
        return PassingSink(store)
    if purpose.kind == "conformance":
        return ConformanceSink(store, output)
    return DatasetSink(store, dataset_writer(study, output, purpose.settings, resume=resume))

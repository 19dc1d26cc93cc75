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
from melissa_gen.server.collectives import SingleRank
from melissa_gen.server.consumer import Consumer, Hooks
from melissa_gen.server.coordination.events import WAITING
from melissa_gen.server.ingest.receiver import RankState
from melissa_gen.server.setup import RankSetup
from melissa_gen.sinks import ConformanceSink, DatasetSink, PassingSink, SideSink, StreamSink

__all__ = ["StreamConsumer", "stream_sink"]

_POLL_SECONDS = 0.1


class StreamConsumer(Consumer):
    """Waits while ingest passes all samples to a sink that uses them as they arrive; for one server rank.

    Args:
        sink: The sink.
        checkpoint_every: Seconds between checkpoints.
        sides: Side sinks that are the only use of the samples; the study fails once all have ended.
    """

    def __init__(
        self, sink: StreamSink, checkpoint_every: float, sides: Sequence[SideSink] = ()
    ) -> None:
        self.sink: StreamSink = sink
        self.shared = RankState()
        self.collectives = SingleRank()
        self._every, self._sides = checkpoint_every, sides

    def attach(self, hooks: Hooks) -> None:
        """Stores the hooks."""
        self._hooks = hooks

    def run(self) -> str | None:
        """Waits until reception has ended, and saves checkpoints at the given interval."""
        saved = time.monotonic()
        while not self.sink.wait_closed(_POLL_SECONDS):
            if self.flaw is not None:
                self._hooks.fail(self.flaw)
                return self.flaw
            error = self.shared.error
            if isinstance(error, DataError):
                # The user can fix a full disk or a damaged file, so one sentence without a traceback is sufficient.
                self._hooks.fail(str(error))
                return str(error)
            if error is not None:
                message = f"the ingest thread failed: {error}"
                raise RunError(message) from error
            if self.shared.stop_reason is not None:
                return self.shared.stop_reason
            due = self.progress and time.monotonic() - saved > self._every
            if due and self._hooks.may_checkpoint():
                saved = time.monotonic()
                self._hooks.checkpoint()
                # It is written on another thread. The watchdog takes every other activity for work.
                self.shared.activity = WAITING
        return self.shared.stop_reason

    @property
    def progress(self) -> int:
        """Number of samples recorded."""
        return self.sink.recorded

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
        """Why all side sinks have ended, if they are the only use of the samples."""
        if not self._sides or any(side.failure is None for side in self._sides):
            return None
        return "; ".join(f"{side.name} has ended: {side.failure}" for side in self._sides)


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

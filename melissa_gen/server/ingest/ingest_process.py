"""The ingest process of a rank, as the rank sees it.

A rank that trains receives in a process of its own, which it starts: in the interpreter of the trainer, each message
would take time from the training, and each training step would keep clients waiting. The process keeps the sockets, the
assembly of samples, the policy of the reservoir and the side sinks. The rows of the samples lie in memory that both
processes share. This module does not import torch.
"""

import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from melissa_gen.builders.fields import input_specs
from melissa_gen.builders.windows import window_shape
from melissa_gen.errors import DataError, RunError, StudyError
from melissa_gen.protocol.contact import Contact
from melissa_gen.reservoir import SampleRows, array_bytes, arrays_in
from melissa_gen.server.child_process import StartedProcess, ended_how, is_stopped
from melissa_gen.server.collectives import Collectives
from melissa_gen.server.coordination.events import PREPARING
from melissa_gen.server.ingest.remote_reservoir import RemoteReservoir
from melissa_gen.server.ingest.shared_inputs import input_arrays
from melissa_gen.server.ingest.shared_state import SharedState, shared_specs
from melissa_gen.server.link import Link
from melissa_gen.server.rank_state import RankState, SavedPart
from melissa_gen.server.reception import SampleSaver
from melissa_gen.server.setup import Checkpoint, RankSetup

__all__ = ["IngestProcess", "TrainerState"]

_POLL_SECONDS = 0.1
_ERRORS: dict[str, type[Exception]] = {
    "StudyError": StudyError,
    "DataError": DataError,
    "OSError": OSError,
}


class _CallsRank0(NamedTuple):
    """The collective call of the setup."""

    from_rank_0: Callable[[Any], Any]


class TrainerState(RankState):
    """The state of a rank, of which ingest is another process.

    Args:
        shared: What both tell each other in memory.
        process: The ingest process.
    """

    def __init__(self, shared: SharedState, process: "IngestProcess") -> None:
        super().__init__(activity=PREPARING)
        self._shared, self._process = shared, process
        self._write()

    def begin_turn(self) -> None:
        """Records that the trainer begins a step of its loop."""
        super().begin_turn()
        self._write()
        self._process.tell_news()

    def begin_piece(self, activity: str) -> None:
        """Records that the trainer begins a piece of work."""
        super().begin_piece(activity)
        self._write()
        self._process.tell_news()

    def now(self, activity: str) -> None:
        """Records what the trainer does."""
        super().now(activity)
        self._write()

    def publish(self, training: dict[str, float]) -> None:
        """Records the figures of the training."""
        super().publish(training)
        self._shared.write_training(training)

    def report_saved(self, part: SavedPart) -> None:
        """Records what the last checkpoint holds of this rank (checkpoint's thread)."""
        super().report_saved(part)
        self._process.tell("saved", part=part)

    def refresh(self) -> None:
        """Learns whether the study was stopped, or ingest has failed."""
        seen = self._shared.read_ingest()
        if (seen.stopped and self.stop_reason is None) or (seen.failed and self.error is None):
            why, _ = self._process.ask("why")
            self.stop_reason = why["stopped"]
            if why["failed"] is not None:
                self.error = RunError(why["failed"])

    def _write(self) -> None:
        self._shared.write_progress(self.turns, self.pieces, self.activity)


class IngestProcess:
    """Calls the process. The trainer's thread calls all methods except those that are said to be for any thread.

    Args:
        started: The process.
        setup: The study and this rank.
        warnings: Returns the warnings of this process since the last call.

    Attributes:
        reservoir: The reservoir, after `open`.
        shared: The state of this rank, after `open`.
    """

    reservoir: RemoteReservoir

    def __init__(
        self, started: StartedProcess, setup: RankSetup, warnings: Callable[[], list[str]]
    ) -> None:
        self._process, self._memory = started.process, started.memory
        self._link, self._files = (Link(descriptor) for descriptor in started.descriptors)
        self._setup, self._warnings = setup, warnings
        self.shared = RankState()
        self._told = 0.0

    def bind(self, contact: Contact) -> dict[str, str]:
        """Binds the data socket; returns its endpoint and this machine.

        Args:
            contact: Secrets of this server process.
        """
        setup = self._setup
        cores = sorted(setup.ingest_cores) if setup.ingest_cores else None
        found: dict[str, str]
        found, _ = self.ask(
            "bind", rank=setup.rank, ranks=setup.ranks, cores=cores, contact=contact.to_json()
        )
        return found

    def open(
        self,
        contact: Contact,
        checkpoint: Checkpoint | None,
        from_rank_0: Callable[[Any], Any],
    ) -> None:
        """Creates reservoir and side sinks, and starts to receive (collective).

        Args:
            contact: The contact with the endpoints of all ranks and of the control process.
            checkpoint: The checkpoint to continue from, or None.
            from_rank_0: Returns rank 0's value on every rank (collective).

        Raises:
            StudyError: The task of the surrogate does not fit the study.
            DataError: A file can't be written, or can't be continued.
            RunError: The memory can't be allocated.
        """
        folder = str(checkpoint.folder) if checkpoint else None
        ranks = _CallsRank0(from_rank_0)
        # Most tasks need torch for it, which the process does not load.
        shape = window_shape(self._setup.study)
        facts, _ = self.ask(
            "open",
            collectives=ranks,
            contact=contact.to_json(),
            checkpoint=folder,
            window=shape and list(shape),
        )
        specs = shared_specs(self._setup.study, facts["slots"])
        self._shared_bytes = array_bytes(specs)
        # All pages are in the map from now on, so that the peak memory of this process counts all of them.
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        memory = memoryview(mmap.mmap(self._memory, self._shared_bytes, flags))
        os.close(self._memory)
        arrays = arrays_in(memory, specs)
        inputs = input_specs(self._setup.study.simulation)
        state = SharedState(arrays)
        rows = SampleRows(arrays, inputs)
        self.reservoir = RemoteReservoir(
            self.ask, self.tell, state, rows, input_arrays(arrays), facts
        )
        self.shared = TrainerState(state, self)

    def counters(self) -> dict[str, Any]:
        """Returns the counters of the reservoir."""
        found: dict[str, Any] = self.ask("counters")[0]
        return found

    def state(self, rows_file: Path | None) -> SampleSaver | None:
        """Takes the state of this rank except the training for `save`; see `Reception`."""
        return self._take("state", rows_file)

    def close(self, rows_file: Path | None = None) -> SampleSaver | None:
        """Ends reception; takes the state before the samples in memory were withdrawn."""
        return self._take("close", rows_file)

    def save(self, partial: Path, *, publish: bool) -> None:
        """Completes the last state, and writes it into the folder of a checkpoint (checkpoint's thread)."""
        self._ask_files("save", partial=str(partial), publish=publish)

    def finish(self, ranks: Collectives, *, complete: bool) -> None:
        """Writes the results of the side sinks after the last sample (collective)."""
        self.ask("finish", collectives=ranks, complete=complete)

    def summary(self) -> dict[str, Any]:
        """Returns the section of each side sink in the summary."""
        found: dict[str, Any] = self.ask("summary")[0]
        return found

    def end(self) -> float:
        """Ends the process; returns its peak memory in megabytes, without what this process counts too."""
        peak, _ = self.ask("end")
        return float(peak) - self._shared_bytes / 1e6

    def leave(self) -> None:
        """Waits for the end of the process, which sends what is queued."""
        ended_how(self._process)

    # Messages.

    def ask(self, call: str, *, collectives: Any = None, **arguments: Any) -> tuple[Any, bytes]:
        """Calls the process and waits for its answer, JSON types and bytes.

        Args:
            call: Name of the call.
            collectives: Carries out collective calls of the process meanwhile: its methods are those calls.
            arguments: Arguments of the call, of JSON types.

        Raises:
            RunError: The process has ended or is stopped, or any error of the call that has no class of its own.
        """
        self._send(self._message(call, arguments, answer=True))
        while True:
            message, payload = self._receive(self._link)
            if "collective" not in message:
                return _value(message), payload
            # An error of another rank is not one of the process.
            method = getattr(collectives, message["collective"])
            self._send({"value": method(*message["arguments"])})

    def tell(self, call: str, payload: bytes = b"", **arguments: Any) -> None:
        """Calls the process without an answer (any thread)."""
        self._send(self._message(call, arguments, answer=False), payload)

    def _send(self, message: dict[str, Any], payload: bytes = b"") -> None:
        try:
            self._link.send(message, payload)
        except OSError as error:
            raise self._lost() from error

    def save_rows(self, canceled: Callable[[], bool]) -> bool:
        """Writes the samples in memory (checkpoint's thread); returns False if it was canceled.

        Raises:
            OSError: The file can't be written.
        """
        return bool(self._ask_files("save_rows", canceled, begin_canceled=canceled()))

    def _ask_files(
        self, call: str, canceled: Callable[[], bool] = lambda: False, **arguments: Any
    ) -> Any:
        told = False

        def cancel() -> None:
            nonlocal told
            if canceled() and not told:
                told = True
                self.tell("cancel_rows")

        try:
            self._files.send({"call": call, "arguments": arguments, "answer": True})
        except OSError as error:
            raise self._lost() from error
        message, _ = self._receive(self._files, cancel)
        return _value(message)

    def _receive(
        self, link: Link, meanwhile: Callable[[], None] = lambda: None
    ) -> tuple[dict[str, Any], bytes]:
        """Waits for a message of the process.

        The control process notices that a rank is silent only until the last report of the rank.

        Args:
            link: The connection.
            meanwhile: Called several times a second.

        Raises:
            RunError: The process has ended, or is stopped.
        """
        patience, since = self._setup.study.server.heartbeat_timeout, None
        while not link.arrives(_POLL_SECONDS):
            meanwhile()
            now = time.monotonic()
            if not is_stopped(self._process.pid):
                since = None
            elif since is None:
                since = now
            elif now - since > patience:
                message = (
                    f"the ingest process of server rank {self._setup.rank} has been stopped for {now - since:.0f} s "
                    "by a signal or a debugger (server.heartbeat_timeout)"
                )
                raise RunError(message)
        try:
            return link.receive()
        except EOFError as error:
            raise self._lost() from error

    def tell_news(self) -> None:
        """Passes on warnings and losses if no other message has done so for some time.

        Raises:
            RunError: The process has ended.
        """
        if time.monotonic() - self._told < _POLL_SECONDS:
            return
        message = self._message("news", {}, answer=False)
        if self._process.poll() is not None:
            raise self._lost()
        if len(message) > 3:
            self._send(message)

    def _take(self, call: str, rows_file: Path | None) -> SampleSaver | None:
        saves, _ = self.ask(call, rows_file=str(rows_file) if rows_file else None)
        return _RowsOfProcess(self) if saves else None

    def _message(self, call: str, arguments: dict[str, Any], *, answer: bool) -> dict[str, Any]:
        self._told = time.monotonic()
        message: dict[str, Any] = {"call": call, "arguments": arguments, "answer": answer}
        if losses := self.shared.take_first_pass():
            message["first_pass"] = losses
        if warnings := self._warnings():
            message["warnings"] = warnings
        return message

    def _lost(self) -> RunError:
        rank, manner = self._setup.rank, ended_how(self._process)
        return RunError(f"the ingest process of server rank {rank} has ended {manner}")


class _RowsOfProcess:
    """Saves the samples that are in memory."""

    def __init__(self, process: IngestProcess) -> None:
        self._process = process

    def run(self, canceled: Callable[[], bool] = lambda: False) -> bool:
        """Writes them; returns False if it was canceled."""
        return self._process.save_rows(canceled)


def _value(message: dict[str, Any]) -> Any:
    """Returns the value of an answer, or raises its error."""
    if "error" in message:
        raise _ERRORS.get(message["kind"], RunError)(message["error"])
    return message["value"]

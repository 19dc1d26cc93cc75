"""Writes a rank's files of a checkpoint on a thread, while reception and training continue."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from melissa_gen.run_dir.checkpoint import write_state
from melissa_gen.run_dir.checkpoint_folder import rank_files
from melissa_gen.server.rank_state import RankState, SavedPart
from melissa_gen.server.reception import SampleSaver

__all__ = ["CheckpointWriter"]


class CheckpointWriter:
    """Writes the files of one rank.

    Args:
        rank: This rank.
        shared: State that ingest reports to the control process; this class writes `saved`.
        save: Writes the state that the ingest of this rank has taken. Takes the folder, and whether the study ends with
            this checkpoint.
    """

    def __init__(
        self,
        rank: int,
        shared: RankState,
        save: Callable[[Path, bool], None] = lambda partial, last: None,
    ) -> None:
        self._rank, self._shared, self._save = rank, shared, save
        self._number = 0
        self._idle_since, self._last_seconds = 0.0, 0.0
        self._canceled = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def ready(self) -> bool:
        """Whether the next checkpoint may begin: the writer has been idle for as long as the last one took."""
        if self._thread is not None and self._thread.is_alive():
            return False
        return time.monotonic() - self._idle_since >= self._last_seconds

    def start(
        self,
        partial: Path,
        state: dict[str, Any],
        saver: SampleSaver | None,
        publish: Callable[[int, threading.Event], None] | None = None,
    ) -> None:
        """Begins to write; the previous checkpoint must be complete.

        Args:
            partial: The folder.
            state: State of this rank.
            saver: Saver of the samples in memory, or None.
            publish: Called after the files are written, with the number of the checkpoint and the event of `cancel`.
        """
        self.cancel()
        self._canceled.clear()
        self._number += 1
        self._thread = threading.Thread(
            target=self._run, args=(partial, state, saver, publish), name="checkpoint", daemon=True
        )
        self._thread.start()

    def cancel(self) -> None:
        """Ends the writing of an incomplete checkpoint."""
        if self._thread is not None:
            self._canceled.set()
            self._thread.join()
            self._thread = None

    def write(self, partial: Path, state: dict[str, Any], saver: SampleSaver | None) -> SavedPart:
        """Writes the files of the last checkpoint in the calling thread, and returns what was written."""
        return self._write(partial, state, saver, lambda: False, last=True)

    def _write(
        self,
        partial: Path,
        state: dict[str, Any],
        saver: SampleSaver | None,
        canceled: Callable[[], bool],
        *,
        last: bool,
    ) -> SavedPart:
        problem = ""
        try:
            if saver is not None:
                saver.run(canceled)
        except OSError as error:
            problem = (
                f"the checkpoint lacks the samples in memory of server rank {self._rank}: {error}"
            )
        try:
            self._save(partial, last)
            write_state(partial, rank_files(self._rank), state)
        except OSError as error:
            problem = f"server rank {self._rank} can't write the checkpoint: {error}"
            return SavedPart(self._number, False, problem)
        return SavedPart(self._number, True, problem)

    def _run(
        self,
        partial: Path,
        state: dict[str, Any],
        saver: SampleSaver | None,
        publish: Callable[[int, threading.Event], None] | None,
    ) -> None:
        began = time.monotonic()
        part = self._write(partial, state, saver, self._canceled.is_set, last=False)
        if not self._canceled.is_set():
            self._shared.report_saved(part)
            if publish is not None:
                publish(self._number, self._canceled)
        self._idle_since = time.monotonic()
        self._last_seconds = self._idle_since - began

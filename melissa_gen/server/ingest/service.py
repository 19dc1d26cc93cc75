"""What the ingest process does for its rank: receives, keeps the policy of the reservoir, and runs the side sinks."""

import errno
import gc
import logging
import mmap
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zmq
from numpy.typing import NDArray

from melissa_gen.builders.descriptors import check_server_limit
from melissa_gen.errors import MelissaGenError, RunError
from melissa_gen.logs import WarningCollector
from melissa_gen.protocol.contact import Contact
from melissa_gen.reservoir import Batch, Draw, Policy, RowSaver, WindowShape, array_bytes, arrays_in
from melissa_gen.reservoir.batches import copied
from melissa_gen.run_dir.checkpoint import write_state
from melissa_gen.run_dir.checkpoint_folder import ingest_files, read_state
from melissa_gen.server.child_process import is_stopped
from melissa_gen.server.ingest.draw_message import first_slots, packed_draw
from melissa_gen.server.ingest.receiver import Ingest
from melissa_gen.server.ingest.reception import bind_data_socket, start_ingest
from melissa_gen.server.ingest.shared_inputs import SharedInputs, input_arrays
from melissa_gen.server.ingest.shared_state import SharedState, StateOfIngest, shared_specs
from melissa_gen.server.link import Link, LinkEnded
from melissa_gen.server.peak_memory import peak_megabytes
from melissa_gen.server.rank_state import RankState, SavedPart
from melissa_gen.server.setup import OF_CONTROL, Checkpoint, RankSetup
from melissa_gen.server.side_sinks import side_sinks
from melissa_gen.server.training.training_reservoir import slots_of, training_reservoir
from melissa_gen.sinks import FanOut, SideSink

__all__ = ["IngestService"]

_log = logging.getLogger(__name__)

_DRAWING = {"begin_draw", "end_draw", "take_offer", "input_fields", "update_losses"}
"""The calls that select batches."""


class _StateFromMemory(RankState):
    """The state of a rank whose trainer is another process.

    Args:
        shared: What both tell each other in memory.
        trainer: Process id of the trainer.
    """

    def __init__(self, shared: SharedState, trainer: int) -> None:
        super().__init__()
        self._shared, self._trainer = shared, trainer

    def refresh(self) -> None:
        """Reads what the trainer has written."""
        self.training = self._shared.read_training()
        self.turns, self.pieces, self.activity = self._shared.read_progress()

    def frozen(self) -> bool:
        """Whether the trainer is stopped by a signal or a debugger."""
        return is_stopped(self._trainer)


class _RanksOfTrainer:
    """Communication between the ranks, which the trainer of this rank carries out while it waits for an answer.

    Args:
        link: The connection to the trainer.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    def barrier(self) -> None:
        """Waits until all ranks have called this method."""
        self._call("barrier")

    def gather(self, value: dict[str, Any]) -> list[dict[str, Any]]:
        """Returns the values (JSON types) of all ranks, in order."""
        found: list[dict[str, Any]] = self._call("gather", value)
        return found

    def from_rank_0(self, value: Any) -> Any:
        """Returns rank 0's value on every rank."""
        return self._call("from_rank_0", value)

    def _call(self, name: str, *arguments: Any) -> Any:
        self._link.send({"collective": name, "arguments": arguments})
        return self._link.receive()[0]["value"]


class IngestService:
    """Answers the calls of the trainer until its last one.

    Args:
        run_dir: The run directory.
        calls: The connection to the trainer.
        files: The connection to the thread of the rank that writes checkpoints.
        memory: File descriptor of the memory that is shared with the rank.
        rank: Process id of the rank.
        warnings: The warnings of this process.
    """

    def __init__(
        self,
        run_dir: Path,
        calls: Link,
        files: Link,
        memory: int,
        rank: int,
        warnings: WarningCollector,
    ) -> None:
        self._run_dir, self._link, self._files = run_dir, calls, files
        self._descriptor, self._rank, self._warnings = memory, rank, warnings
        self._ranks = _RanksOfTrainer(calls)
        self._context: zmq.Context[Any] = zmq.Context()
        self._changing = threading.Lock()
        self._arrived = 0
        # Slots of the last arrivals, whose rows the trainer has not read.
        self._unread: deque[int] = deque()
        self._draw: tuple[Draw, Batch | None] | None = None
        # Numbers of the last offer, and of the last one that was drawn or given up.
        self._offers = self._taken_offer = 0
        self._draws_inputs = False
        self._saver: RowSaver | None = None
        self._canceled = threading.Event()

    def run(self) -> None:
        """Handles calls.

        Raises:
            EOFError: The rank has ended before its last call.
        """
        last = False
        while not last:
            last = self._handle(self._link)
        # Sends what is queued, for at most the linger time of the sockets: all of them are closed now.
        self._context.term()

    def _serve_files(self) -> None:
        try:
            while True:
                self._handle(self._files)
        except EOFError:
            # The main thread notices it, too.
            return

    def _handle(self, link: Link) -> bool:
        """Receives a call and carries it out; returns whether it was the last one."""
        message, payload = link.receive()
        began = time.monotonic()
        last = self._carry_out(link, message, payload)
        if message["call"] in _DRAWING:
            self._state.drawing_seconds += time.monotonic() - began
        return last

    def _carry_out(self, link: Link, message: dict[str, Any], payload: bytes) -> bool:
        """Carries out a call, and sends its answer if there is one; returns whether it was the last one."""
        call, arguments = message["call"], message["arguments"]
        if "first_pass" in message:
            self._state.add_first_pass([tuple(one) for one in message["first_pass"]])
        if "warnings" in message:
            self._warnings.accept(message["warnings"])
        if payload:
            arguments["payload"] = payload
        work: Callable[..., Any] = getattr(self, f"do_{call}")
        if not message["answer"]:
            work(**arguments)
            return False
        answer: dict[str, Any] = {}
        data = b""
        try:
            found = work(**arguments)
            answer["value"], data = found if isinstance(found, tuple) else (found, b"")
        except LinkEnded:
            raise
        except (MelissaGenError, OSError) as error:
            kind = "OSError" if isinstance(error, OSError) else type(error).__name__
            answer |= {"error": str(error), "kind": kind}
        except Exception as error:
            _log.exception("the ingest process can't carry out '%s'", call)
            answer |= {"error": f"{type(error).__name__}: {error}", "kind": "RunError"}
        link.send(answer, data)
        return bool(call == "end")

    # Calls at the start.

    def do_bind(
        self, rank: int, ranks: int, cores: list[int] | None, contact: str
    ) -> dict[str, str]:
        """Binds the data socket; returns its endpoint and this machine."""
        if cores is not None:
            os.sched_setaffinity(0, cores)
        self._setup = RankSetup.read(self._run_dir, rank, ranks)
        check_server_limit(self._setup.study)
        self._data = bind_data_socket(self._setup, self._context, Contact.from_json(contact))
        # After the cores are set, which a thread takes over from the one that starts it.
        threading.Thread(target=self._serve_files, name="files", daemon=True).start()
        return {"endpoint": self._data.endpoint, "machine": self._data.machine}

    def do_open(
        self, contact: str, checkpoint: str | None, window: list[int] | None
    ) -> dict[str, Any]:
        """Creates the sinks, restores them, and starts the ingest thread; returns the facts of the reservoir."""
        self._shape = WindowShape(*window) if window else None
        setup, resume = self._setup, checkpoint is not None
        study = setup.study
        sides = self.create_sides(setup, resume=resume)
        specs = shared_specs(study, slots_of(study, self._shape))
        arrays = arrays_in(self._allocated(array_bytes(specs)), specs)
        self._shared, self._inputs = SharedState(arrays), SharedInputs(input_arrays(arrays))
        reservoir = self.create_policy(setup, arrays, resume=resume)
        self._reservoir, self._sink = reservoir, FanOut(reservoir, sides)
        self._keeps_losses = type(reservoir).update_losses is not Policy.update_losses
        self._state = _StateFromMemory(self._shared, self._rank)
        used = None
        if checkpoint is not None:
            folder = Path(checkpoint)
            used = Checkpoint(folder, read_state(folder, leave_out=OF_CONTROL))
        self._ingest: Ingest = start_ingest(
            setup,
            self._data,
            Contact.from_json(contact),
            self._sink,
            self._state,
            used,
            self._warnings.take,
            self._changed,
        )
        self._changed()
        # The objects created so far live until the end; the garbage collector does not have to check them again.
        gc.freeze()
        return {
            "slots": reservoir.store.slots,
            "capacity": reservoir.capacity,
            "restorable": reservoir.restorable,
            "items_per_sample": reservoir.items_per_sample,
            "refilled": reservoir.refilled,
            "steps": reservoir.window_steps,
            "batch_size": study.training.batch_size,
            "keeps_losses": self._keeps_losses,
        }

    def create_sides(self, setup: RankSetup, *, resume: bool) -> Sequence[SideSink]:
        """Creates the sinks beside the training (collective)."""
        return side_sinks(setup, resume=resume, from_rank_0=self._ranks.from_rank_0)

    def create_policy(
        self, setup: RankSetup, arrays: Mapping[str, NDArray[Any]], *, resume: bool
    ) -> Policy:
        """Creates the reservoir over the shared arrays."""
        study, rank, ranks = setup.study, setup.rank, setup.ranks
        return training_reservoir(study, rank, ranks, self._shape, resume=resume, arrays=arrays)

    def _allocated(self, size: int) -> memoryview:
        """Allocates the shared memory; pages that are only reserved could be missing later."""
        try:
            # The system would not refuse more than there is, but end processes.
            if size > psutil.virtual_memory().available:
                raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
            os.posix_fallocate(self._descriptor, 0, size)
            # With all pages in the map of this process, its peak memory counts all of them.
            flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
            return memoryview(mmap.mmap(self._descriptor, size, flags))
        except OSError as error:
            message = (
                f"could not allocate a reservoir of {size / 1e6:.0f} MB ({error.strerror}): "
                "lower reservoir.capacity or request more memory per server rank"
            )
            raise RunError(message) from error

    def _changed(self) -> None:
        """Writes what the trainer reads before each step (any thread)."""
        with self._changing:
            # Before the stock, which then never lacks a draw that is said to be carried out.
            taken = self._taken_offer
            left = self._arrived - self._shared.read_read()
            read = [self._unread.popleft() for _ in range(len(self._unread) - left)]
            slots = self._reservoir.take_arrivals(read)
            self._unread += slots
            if slots:
                self._shared.add_arrivals(self._arrived, slots)
                self._arrived += len(slots)
            stock = self._reservoir.stock(self._setup.study.training.batch_size)
            stopped = self._state.stop_reason is not None
            failed = self._state.error is not None
            state = StateOfIngest(stock, self._arrived, taken, stopped, failed)
            self._shared.write_ingest(state)

    # Calls of the training loop.

    def do_begin_draw(self, n: int, below_watermark: bool, inputs: bool) -> tuple[Any, bytes]:
        """Selects a batch: that of the last offer, if it was not taken and has as many items.

        Args:
            n: Number of items.
            below_watermark: See `Policy.draw`.
            inputs: Whether it needs the input fields of its simulations.
        """
        draw = self._reservoir.begin_draw(n, below_watermark=below_watermark)
        if draw is None:
            return None, b""
        batch = copied(self._reservoir.store, draw, {}) if self._keeps_losses else None
        self._draw = draw, batch
        self._draws_inputs, self._taken_offer = inputs, self._offers
        head, data = packed_draw(draw, self._input_rows(draw) if inputs else ())
        self._changed()
        # Samples that were drawn for the first time can be evicted now.
        self._ingest.made_room()
        return head | {"offers": self._offers}, data

    def _input_rows(self, draw: Draw) -> list[int]:
        """Returns the row of the shared input fields that each item of a draw needs."""
        store, slots = self._reservoir.store, first_slots(draw)
        simulations = store.simulations[slots].tolist()
        # One slot of each simulation.
        holders = dict(zip(simulations, slots, strict=True))
        rows = self._inputs.place({one: store.input_fields[at] for one, at in holders.items()})
        return [rows[simulation] for simulation in simulations]

    def do_end_draw(self) -> None:
        """Frees what the last draw has removed."""
        assert self._draw is not None
        self._reservoir.end_draw(self._draw[0])
        self._drawn()

    def do_take_offer(self, n: int) -> None:
        """Draws the n items of the last offer, whose rows the trainer has read."""
        draw = self._reservoir.begin_draw(n, below_watermark=True)
        assert draw is not None
        self._reservoir.end_draw(draw)
        self._taken_offer = self._offers
        self._drawn()

    def _drawn(self) -> None:
        """Makes a draw known, and offers the next batch, so that the trainer does not have to wait for it."""
        self._changed()
        self._ingest.made_room()
        draw = self._reservoir.offer(self._setup.study.training.batch_size)
        if draw is not None:
            self._offers += 1
            rows = self._input_rows(draw) if self._draws_inputs else ()
            self._shared.write_offer(self._offers, draw, rows)

    def do_input_fields(self, slots: list[int]) -> tuple[None, bytes]:
        """Returns the input fields of the simulations in some slots of arrivals that the trainer has not read."""
        rows = self._reservoir.store
        fields = [rows.input_fields[slot][name] for slot in slots for name in rows.input_specs]
        return None, b"".join(np.ascontiguousarray(one).tobytes() for one in fields)

    def do_wait_ready(self, n: int, timeout: float | None) -> bool:
        """Waits until a batch can be drawn."""
        ready = self._reservoir.wait_ready(n, timeout)
        self._changed()
        self._ingest.made_room()
        return ready

    def do_allow_puts(self, total: int | None) -> None:
        """Limits the number of samples that are accepted."""
        self._reservoir.allow_puts(total)
        self._changed()
        self._ingest.made_room()

    def do_update_losses(self, payload: bytes) -> None:
        """Records the losses of the last draw."""
        assert self._draw is not None and self._draw[1] is not None
        self._reservoir.update_losses(self._draw[1], np.frombuffer(payload, np.float64))

    def do_rescale_losses(self, factor: float) -> None:
        """Converts the recorded losses."""
        self._reservoir.rescale_losses(factor)

    def do_why(self) -> dict[str, str | None]:
        """Returns why the study was stopped, and why ingest has failed."""
        error = self._state.error
        expected = error is None or isinstance(error, MelissaGenError)
        text = str(error) if expected else f"{type(error).__name__}: {error}"
        return {"stopped": self._state.stop_reason, "failed": None if error is None else text}

    def do_news(self) -> None:
        """Does nothing: the message carries what is new."""

    # Calls for checkpoints and for the end.

    def do_saved(self, part: list[Any]) -> None:
        """Reports what the last checkpoint holds of this rank."""
        self._state.saved = SavedPart(*part)

    def do_state(self, rows_file: str | None) -> bool:
        """Takes the state of assembler and sinks for `save`; returns whether `save_rows` must come before it."""
        return self._take(self._ingest.state(Path(rows_file) if rows_file else None))

    def do_close(self, rows_file: str | None) -> bool:
        """Ends reception; see `do_state`."""
        taken = self._take(self._ingest.close(Path(rows_file) if rows_file else None))
        self._changed()
        return taken

    def _take(self, taken: tuple[dict[str, Any], RowSaver | None]) -> bool:
        self._canceled.clear()
        self._taken, self._saver = taken
        return self._saver is not None

    def do_save_rows(self, begin_canceled: bool) -> bool:
        """Writes the samples in memory; returns False if it was canceled."""
        assert self._saver is not None
        if begin_canceled:
            self._canceled.set()
        return self._saver.run(self._canceled.is_set)

    def do_cancel_rows(self) -> None:
        """Ends `save_rows`."""
        self._canceled.set()

    def do_save(self, partial: str, publish: bool) -> None:
        """Completes the last state, and writes it into the folder of a checkpoint."""
        self._sink.sync(publish=publish)
        write_state(Path(partial), ingest_files(self._setup.rank), self._taken)

    def do_counters(self) -> dict[str, Any]:
        """Returns the counters of the reservoir."""
        return self._sink.counters()

    def do_finish(self, complete: bool) -> None:
        """Writes the results of the side sinks (collective)."""
        self._sink.finish(self._ranks, complete=complete)

    def do_summary(self) -> dict[str, Any]:
        """Returns the sections of the side sinks."""
        return self._sink.summary()

    def do_end(self) -> float:
        """Returns the peak memory of this process, in megabytes; the last call."""
        return peak_megabytes()

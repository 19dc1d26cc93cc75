"""The tasks of the control process: control, heartbeats, sampler, events, checkpoints and summary."""

import contextlib
import importlib
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import zmq

from melissa_gen.error_bounds import FirstErrors
from melissa_gen.errors import RunError
from melissa_gen.protocol.authenticator import Authenticator
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.sockets import bind_socket
from melissa_gen.run_dir.checkpoint import partial_folder, publish_checkpoint, write_state
from melissa_gen.run_dir.checkpoint_folder import STATE, fixed_settings
from melissa_gen.run_dir.durable import write_file
from melissa_gen.run_dir.events import EventLog, last_status, number_at
from melissa_gen.run_dir.strict_json import strict_json
from melissa_gen.sampling import METHODS
from melissa_gen.server.coordination.control_thread import ControlThread
from melissa_gen.server.coordination.heartbeat_thread import HeartbeatThread
from melissa_gen.server.coordination.ledger import Ledger
from melissa_gen.server.coordination.point_source import point_source
from melissa_gen.server.coordination.proposal_queue import ProposalQueue
from melissa_gen.server.coordination.settings import study_parameters
from melissa_gen.server.coordination.status import StatusBoard
from melissa_gen.server.listening import listening_address
from melissa_gen.server.peak_memory import peak_megabytes
from melissa_gen.server.rank_state import SavedPart
from melissa_gen.server.setup import Checkpoint, RankSetup

if TYPE_CHECKING:
    from melissa_gen.server.coordination.snapshots import Snapshots
    from melissa_gen.surrogates import SurrogateProbe

__all__ = ["Coordinator"]

_LISTED_AT_CHECKPOINTS = 20_000
"""Largest number of simulations of which a checkpoint also writes `simulations.jsonl`; more would take seconds."""
_IN_TIME = ("against_time", "correlation_time", "log_spectral_error")
_TOLD_TO_LAUNCHER = (
    *("server_ready", "memory_promised", "resumed", "training_started", "rescaled"),
    *("checkpoint", "generation", "validation"),
)


class Coordinator:
    """Runs control, heartbeats, sampler, events and checkpoints.

    Args:
        setup: The study and rank 0.
        context: The process's ZeroMQ context.
        contact: Secrets of this server process, and all ranks' data sockets.
        checkpoint: The checkpoint to continue from, or None.
        abort: Ends all ranks of the server at once, and takes the reason.
        authenticator: The authenticator of the context, which counts refused connections.
        ask_for_weights: Asks the trainer for its weights; `add_weights` takes the answer.
        warnings: Returns the warnings of this process since the last call.

    Attributes:
        contact: The contact with all endpoints.
        proposals: Source of the next parameters.
    """

    def __init__(
        self,
        setup: RankSetup,
        context: zmq.Context[Any],
        contact: Contact,
        checkpoint: Checkpoint | None,
        abort: Callable[[str], None],
        authenticator: Authenticator,
        ask_for_weights: Callable[[], None],
        warnings: Callable[[], list[str]] = list,
    ) -> None:
        study = setup.study
        self._ask_for_weights = ask_for_weights
        self._snapshots: Snapshots | None = None
        self._saving: dict[str, Any] = {}
        self._study, self._run_dir, self._began = study, setup.run_dir, setup.began
        self._trains = setup.trains
        self._learns = setup.trains and METHODS[study.sampler.method].learns
        events = setup.run_dir / "events.jsonl"
        before = last_status(events) or {}
        self._log = EventLog(events)
        self._listeners: list[Any] = []
        if self._trains and "tensorboard" in study.report.trackers:
            from melissa_gen.report.tensorboard import TensorBoardWriter

            batches = checkpoint.state["batches"] if checkpoint else None
            self._listeners.append(TensorBoardWriter(setup.run_dir / "tensorboard", batches))
        address, ports = listening_address(study), study.server.ports
        bind = partial(
            bind_socket, context, contact, address=address, ports=ports, authenticator=authenticator
        )
        control, control_endpoint = bind("control", queue=0)
        beats, beats_endpoint = bind("heartbeat")
        self.contact = replace(contact, control=control_endpoint, heartbeat=beats_endpoint)
        simulation = study.simulation
        self._ledger = Ledger(simulation.count, simulation.time_steps, simulation.retries)
        self.proposals = point_source(setup, self.event)
        self._checkpoint, self._solved_again = checkpoint, 0
        lost = 0
        if checkpoint is not None:
            self._solved_again = self._ledger.restore(checkpoint.state["ledger"])
            self.proposals.restore(checkpoint.state["proposals"], self._ledger.records)
            lost = _lost_since(checkpoint, before)
        self._board = _status_board(setup, before, checkpoint, lost)
        self._heartbeats = HeartbeatThread(self.contact, beats)
        self._control = ControlThread(
            study,
            self.contact,
            control,
            self._heartbeats,
            self._ledger,
            self.proposals,
            self._board,
            self.event,
            abort=abort,
            strangers=authenticator.take_refused,
            warnings=warnings,
        )
        self._promise: float | None = None
        self._control_promise: float | None = None

    @property
    def queue(self) -> ProposalQueue | None:
        """The queue of the sampler; None in a run without one."""
        return self.proposals if isinstance(self.proposals, ProposalQueue) else None

    def start_serving(self, batches: int, restored: int) -> None:
        """Creates the first proposals and publishes the contact; called when all ranks are ready.

        Args:
            batches: Batches trained by earlier servers.
            restored: Samples of earlier servers that are in memory again.
        """
        study = self._study
        self._board.begin()
        if self.contact.epoch == 0:
            self.event(
                "run_started",
                study=study.name,
                epoch=self.contact.epoch,
                run_dir=str(self._run_dir),
                ranks=study.server.ranks,
                clients=study.launcher.clients,
            )
        else:
            self.event(
                "resumed",
                epoch=self.contact.epoch,
                checkpoint=self._checkpoint.folder.name if self._checkpoint else None,
                batches=batches,
                solved_again=self._solved_again,
                samples_lost=self._board.lost,
                samples_restored=restored,
            )
        self.proposals.start()
        if self.queue is not None:
            # The first generation does not wait for a trainer that has not begun.
            self.queue.set_probe(self._probe)
        self._control.start()
        self.event(
            "server_ready",
            seconds=time.monotonic() - self._began,
            ranks=study.server.ranks,
        )
        self.contact.write(self._run_dir / "contact.json")

    def promise(self, each: float, control: float) -> None:
        """Records the memory limits of each rank and of this process (10**6 bytes)."""
        self._promise, self._control_promise = each, control
        self.event(
            "memory_promised", promised_megabytes=each, promised_megabytes_of_control=control
        )

    def event(self, event: str, **fields: Any) -> dict[str, Any]:
        """Writes an event; a full disk stops the study with one sentence."""
        try:
            record = self._log.write(event, **fields)
            for listener in self._listeners:
                listener.add(record)
        except (RunError, OSError) as error:
            record = {"event": event, "time": time.time(), **fields}
            self.fail(f"the run directory can't be written: {error}")
        if event == "first_sample" and self._learns:
            # Not before, when solvers start; and not when the first generation that learns is due, which would be late.
            threading.Thread(target=_import_torch, name="imports", daemon=True).start()
        if event == "validation":
            self._board.validation = fields[self._study.training.error_name]
            self._board.validation_by_field = fields["fields"]
            self._board.validation_in_time = {k: fields[k] for k in _IN_TIME}
            self._board.validation_sets = fields["sets"]
        if event in _TOLD_TO_LAUNCHER:
            self._control.tell_launcher(record | {"type": "event"})
        return record

    def warn(self, message: str) -> None:
        """Writes a warning and shows it on the terminal."""
        self._control.tell_launcher(self.event("warning", message=message) | {"type": "event"})

    def fail(self, reason: str) -> None:
        """Stops the study because something failed (any thread)."""
        self._control.report_failure(reason)

    def reach_goal(self, reason: str) -> None:
        """Ends the study as finished although not all simulations have run (any thread)."""
        self._control.reach_goal(reason)

    def add_weights(self, batches: int, payload: bytes) -> None:
        """Adds the weights of the surrogate after a number of batches, as `training.weights.packed` packs them."""
        if self._snapshots is not None:
            self._snapshots.add(batches, payload)

    def first_passes(self) -> dict[str, list[Any]]:
        """Returns what the error bounds of the surrogate need: first-pass losses with their points and weights."""
        queue = self.queue
        assert queue is not None
        numbers, losses = queue.first_passes()
        kept = FirstErrors.needed(len(numbers))
        points, weights = queue.drawn(numbers[kept])
        found = {"parameters": points, "losses": losses[kept], "weights": weights}
        return {name: values.tolist() for name, values in found.items()}

    def begin_checkpoint(self, state: dict[str, Any]) -> None:
        """Takes the state of control and sampler for a checkpoint, which `publish` writes.

        Args:
            state: What rank 0 adds: progress, settings of the model, and whether it is fit to be saved.
        """
        with self._control.lock:
            self._saving = state | {
                "study": fixed_settings(self._study),
                "ranks": self._study.server.ranks,
                "epoch": self.contact.epoch,
                "ledger": self._ledger.state(),
                "proposals": self.proposals.state(),
                "validation": self._board.validation,
                "validation_by_field": self._board.validation_by_field,
                "validation_in_time": self._board.validation_in_time,
                "validation_sets": self._board.validation_sets,
                "lost": self._board.lost,
            }

    def publish_if_written(self, name: str, number: int) -> bool:
        """Publishes a checkpoint if all ranks have reported that their part is on disk; returns whether they have.

        Args:
            name: Name of the folder in `checkpoints`.
            number: Number of the checkpoint.
        """
        parts = self._board.saved()
        written = all(part.number >= number for part in parts)
        if written:
            self.publish(name, parts)
        return written

    def publish(self, name: str, parts: list[SavedPart]) -> None:
        """Publishes a checkpoint of which all ranks have written their part; a full disk stops the study.

        Args:
            name: Name of the folder in `checkpoints`.
            parts: What the ranks have written.
        """
        state, self._saving = self._saving, {}
        if not state["fit"]:
            self.warn("no checkpoint was saved, because the training has diverged")
            return
        folder = self._run_dir / "checkpoints" / name
        began = state.pop("began")
        unusable = next((part.problem for part in parts if not part.usable), None)
        if unusable is not None:
            self.fail(unusable)
            return
        try:
            write_state(partial_folder(folder), STATE, state)
            publish_checkpoint(folder, (state["epoch"], state["batches"]))
        except (OSError, RunError) as error:
            self.fail(f"can't write the checkpoint: {error}")
            return
        for part in parts:
            if part.problem:
                self.warn(part.problem)
        self.event("checkpoint", path=str(folder), seconds=time.monotonic() - began)
        if len(self._ledger.records) <= _LISTED_AT_CHECKPOINTS:
            # Without the lock of the control thread, which must not wait for a disk: a simulation that ends meanwhile
            # is listed as it was or as it is. The end of the run writes the file again, and says if it can't.
            with contextlib.suppress(OSError):
                self._write_simulations()

    @property
    def handing_over(self) -> bool:
        """Whether another server continues the study."""
        return self._control.handing_over and self._control.failure is None

    def end_control(self) -> None:
        """Ends the sampler, and waits for the last reports of all ranks."""
        self.proposals.close()
        self._control.wait_for_last_reports()

    def outcome(
        self, stopped: str | None, flaw: str | None, *, handover: bool
    ) -> tuple[str, str | None]:
        """Returns the status of the study at its end, and the reason unless it is `finished`.

        Args:
            stopped: The reason why rank 0's consumer was stopped early, or None.
            flaw: The `flaw` of rank 0's consumer.
            handover: Whether another server continues.
        """
        if self._control.failure:
            return "failed", self._control.failure
        # If another rank has stopped the consumer, the reason is not known here.
        reason = (self._control.stop_reason or stopped) if stopped is not None else None
        if handover:
            return "left", reason
        goal = self._control.goal_reached
        if stopped is not None and goal is None:
            return "stopped", reason
        failure = self._ledger.failure() or flaw
        return ("failed", failure) if failure else ("finished", goal and self._with_savings(goal))

    def finish(
        self,
        stopped: str | None,
        flaw: str | None,
        peaks: list[float],
        results: dict[str, Any],
        *,
        handover: bool,
    ) -> None:
        """Ends all threads, and writes the results unless another server continues.

        Args:
            stopped: The reason why the study was stopped early, or None.
            flaw: The `flaw` of rank 0's consumer.
            peaks: The peak memory of each rank (10**6 bytes).
            results: The sections of consumer and side sinks in the summary.
            handover: Whether another server continues.
        """
        status, reason = self.outcome(stopped, flaw, handover=handover)
        self.event("server_left" if handover else "run_finished", status=status)
        # The last reports of all ranks are in the control socket's queue: the thread reads them before it ends.
        self._control.finish(status, reason)
        self._heartbeats.close()
        if not handover:
            self._write_results(self._summary(status, reason, peaks) | results)
        self._log.close()
        for listener in self._listeners:
            listener.close()

    def _with_savings(self, goal: str) -> str:
        """Returns the sentence on a goal that was reached, with the number of simulations that were not run."""
        counts = self._ledger.counts()
        left = counts["planned"] - counts["completed"] - counts["failed"]
        return f"{goal}; {left} of {counts['planned']} simulations were not run"

    def _probe(self) -> "SurrogateProbe | None":
        """Returns a probe of the surrogate in training, or None before training; called by the sampler's thread."""
        if self._snapshots is None:
            # Imported and built here because both take time, and the first generation needs none.
            from melissa_gen.server.coordination.snapshots import Snapshots

            self._snapshots = Snapshots(self._study, self._ask_for_weights)
        return self._snapshots.take()

    def _write_results(self, summary: dict[str, Any]) -> None:
        try:
            self._write_simulations()
            write_file(self._run_dir / "summary.json", strict_json(summary, indent=1) + "\n")
        except OSError as error:
            message = f"{self._run_dir}: can't write the results: {error.strerror}"
            raise RunError(message) from error

    def _write_simulations(self) -> None:
        parameters = study_parameters(self._study.parameters)
        lines = (
            strict_json(one.line(parameters, self.proposals.difficulty(one.simulation))) + "\n"
            for one in self._ledger.records
        )
        write_file(self._run_dir / "simulations.jsonl", lines)

    def _summary(self, status: str, reason: str | None, peaks: list[float]) -> dict[str, Any]:
        counts = self._ledger.counts()
        seconds = self._board.elapsed
        samples = self._board.samples()
        figures = self.proposals.statistics()
        error = self._study.training.error_name
        return {
            "status": status,
            "reason": reason,
            "study": self._study.name,
            "wall_seconds": seconds,
            "setup_seconds": 0.0,
            "simulations": {k: counts[k] for k in ("planned", "completed", "failed", "retried")},
            "samples": samples,
            "withdrawn": self._board.withdrawn(),
            "validation": {
                error: self._board.validation,
                "fields": {
                    name: {error: errors}
                    for name, errors in self._board.validation_by_field.items()
                },
                **self._board.validation_in_time,
                "simulations": self._validation_simulations(),
                "sets": self._board.validation_sets,
            },
            "sampler": {
                k: figures[k]
                for k in (
                    *("method", "suggested", "adaptive", "late", "paced"),
                    *("generations", "failed_generations", "seconds"),
                )
            }
            | {"failure": failure.traceback if (failure := self.proposals.failure) else None},
            "throughput": {
                "samples_per_second": samples["received"] / seconds,
                "megabytes_per_second": self._board.megabytes / seconds,
            },
            "memory": {
                "peak_rss_megabytes_per_rank": peaks,
                "promised_megabytes_per_rank": [self._promise] * self._study.server.ranks,
                "peak_rss_megabytes_of_control": peak_megabytes(),
                "promised_megabytes_of_control": self._control_promise,
            },
        }

    def _validation_simulations(self) -> int:
        """Returns the number of simulations of the validation set whose errors are the results of the run."""
        section = self._study.training.validation
        if section.main is None:
            return section.simulations * self._trains
        known: int = self._board.validation_sets.get(section.main, {}).get("simulations", 0)
        return known


def _import_torch() -> None:
    """Imports what a sampler needs that learns from the training, with a lower priority than solvers and trainer."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
    importlib.import_module("melissa_gen.server.coordination.snapshots")


def _status_board(
    setup: RankSetup, before: dict[str, Any], checkpoint: Checkpoint | None, lost: int
) -> StatusBoard:
    """Creates the board, with the last validation of the checkpoint.

    Args:
        setup: The study, and the purpose of the run.
        before: The last `status` event of earlier servers.
        checkpoint: The checkpoint to continue from, or None.
        lost: Samples lost with an earlier server.
    """
    elapsed = number_at(before, "elapsed")
    earlier = 0.0 if math.isnan(elapsed) else elapsed
    study, purpose = setup.study, setup.purpose
    between = "solving" if purpose.solves else "reading" if purpose.data else None
    board = StatusBoard(study.server.ranks, earlier, lost, study.training.error_name, between)
    if checkpoint is not None:
        board.validation = checkpoint.state["validation"]
        board.validation_by_field = checkpoint.state["validation_by_field"]
        board.validation_in_time = checkpoint.state.get("validation_in_time", {})
        board.validation_sets = checkpoint.state.get("validation_sets", {})
    return board


def _lost_since(checkpoint: Checkpoint, status: dict[str, Any]) -> int:
    """Returns the number of samples that earlier servers stored after their last checkpoint, from `status` events."""
    state = checkpoint.state
    known = sum(rank["reservoir"]["counters"]["stored"] for rank in checkpoint.rank_states())
    stored = number_at(status, "samples", "stored")
    since = 0 if math.isnan(stored) else int(stored) - known - state["lost"]
    return int(state["lost"]) + max(since, 0)

"""What rank 0 has beside the others: control, heartbeats, sampler, events, checkpoints, the summary."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import zmq

from melissa_gen import sampling
from melissa_gen.builders.memory import promised_megabytes
from melissa_gen.builders.prior import prior_of
from melissa_gen.errors import RunError
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.sockets import bind_socket
from melissa_gen.report.events import EventLog, figure, last_status
from melissa_gen.report.tensorboard import TensorBoardWriter
from melissa_gen.run_dir.checkpoint import save_checkpoint
from melissa_gen.run_dir.checkpoint_folder import FINAL, LATEST, fixed_settings
from melissa_gen.server.coordination.control_thread import ControlThread
from melissa_gen.server.coordination.heartbeat_thread import HeartbeatThread
from melissa_gen.server.coordination.ledger import Ledger
from melissa_gen.server.coordination.proposal_queue import ProposalQueue
from melissa_gen.server.coordination.status import StatusBoard
from melissa_gen.server.listening import listening_address
from melissa_gen.server.training.snapshots import Snapshots
from melissa_gen.server.training.trainer import Trainer
from melissa_gen.study import Study
from melissa_gen.surrogates import Surrogate

__all__ = ["Coordinator"]


class Coordinator:
    """Rank 0's own duties.

    Args:
        study: The study.
        run_dir: The run directory.
        context: The process's ZeroMQ context.
        contact: Secrets of this incarnation, and all ranks' data sockets.
        began: When the process started (monotonic seconds).
        saved: Folder and state of the checkpoint to go on from, or None.

    Attributes:
        contact: Complete with all endpoints.
    """

    def __init__(
        self,
        study: Study,
        run_dir: Path,
        context: zmq.Context[Any],
        contact: Contact,
        began: float,
        saved: tuple[Path, dict[str, Any]] | None,
    ) -> None:
        self._study, self._run_dir, self._began = study, run_dir, began
        events = run_dir / "events.jsonl"
        before = last_status(events) or {}
        self._log = EventLog(events)
        batches = saved[1]["batches"] if saved else None
        self._tensorboard = TensorBoardWriter(run_dir / "tensorboard", batches)
        address, ports = listening_address(study), study.server.ports
        control, control_endpoint = bind_socket(
            context, contact, "control", address, queue=0, ports=ports
        )
        beats, beats_endpoint = bind_socket(context, contact, "heartbeat", address, ports=ports)
        self.contact = replace(contact, control=control_endpoint, heartbeat=beats_endpoint)
        simulation, sampler = study.simulation, study.sampler
        self._ledger = Ledger(
            simulation.count, simulation.time_steps, study.server.ranks, simulation.retries
        )
        prior = prior_of(study)
        self._proposals = ProposalQueue(
            sampling.create(
                sampler.method,
                prior,
                study.seed,
                sampler.max_adaptive_share,
                sampler.ramp_generations,
                _sampler_arguments(study),
            ),
            prior,
            sampling.DifficultyTracker(sampler.difficulty),
            size=sampler.generation_size,
            low=min(study.launcher.clients, sampler.generation_size),
            total=simulation.count,
            importance_exponent=study.training.importance_exponent,
            seed=study.seed,
            event=self.event,
        )
        self._saved, self._again = saved, 0
        lost = 0
        if saved is not None:
            self._again = self._ledger.restore(saved[1]["ledger"])
            self._proposals.restore(saved[1]["proposals"], self._ledger.records)
            lost = _lost_since(saved[1], before)
        elapsed = figure(before, "elapsed")
        self._board = StatusBoard(study.server.ranks, 0.0 if math.isnan(elapsed) else elapsed, lost)
        self._board.validation = saved[1]["validation"] if saved else None
        self._heartbeats = HeartbeatThread(self.contact, beats)
        self._control = ControlThread(
            study,
            self.contact,
            control,
            self._heartbeats,
            self._ledger,
            self._proposals,
            self._board,
            self.event,
        )
        self._promised = [promised_megabytes(study)] * study.server.ranks
        self._trainer: Trainer | None = None

    def show_sampler(self, surrogate: Surrogate) -> Callable[[Surrogate, int], None]:
        """Lets the sampler see the surrogate in training, if it would look.

        Returns:
            What the trainer calls between two steps.
        """
        if not self._proposals.uses_surrogate:
            return lambda surrogate, batches: None
        ensemble = self._study.surrogate.ensemble
        # Snapshots that nobody asked for would cost a pass each, and say less than novelty does.
        members = ensemble.count if ensemble and ensemble.kind == "snapshots" else 1
        snapshots = Snapshots(surrogate, members)
        self._proposals.set_probe(snapshots.take)
        return snapshots.offer

    def open_for_business(self, trainer: Trainer) -> None:
        """All ranks are ready: makes the first proposals and lets clients and launcher find the server."""
        self._trainer = trainer
        study = self._study
        if self.contact.epoch == 0:
            self.event(
                "run_started",
                study=study.name,
                epoch=self.contact.epoch,
                run_dir=str(self._run_dir),
                ranks=study.server.ranks,
                clients=study.launcher.clients,
                promised_megabytes_per_rank=self._promised,
            )
        else:
            self.event(
                "resumed",
                epoch=self.contact.epoch,
                checkpoint=self._saved[0].name if self._saved else None,
                batches=trainer.batches,
                solved_again=self._again,
                samples_lost=self._board.lost,
            )
        self._proposals.start()
        self._control.start()
        self.event("server_ready", seconds=time.monotonic() - self._began)
        self.contact.write(self._run_dir / "contact.json")

    def event(self, event: str, **fields: Any) -> dict[str, Any]:
        """Writes an event; a full disk stops the study with one sentence."""
        try:
            record = self._log.write(event, **fields)
            self._tensorboard.add(record)
        except (RunError, OSError) as error:
            record = {"event": event, "time": time.time(), **fields}
            self._control.report_failure(f"the run directory can't be written: {error}")
        if event == "validation":
            self._board.validation = fields["nrmse"]
            self._control.tell_launcher(record | {"type": "event"})
        if event in ("resumed", "training_started", "checkpoint", "generation"):
            self._control.tell_launcher(record | {"type": "event"})
        return record

    def warn(self, message: str) -> None:
        """Writes a warning, and tells it to who watches."""
        self._control.tell_launcher(self.event("warning", message=message) | {"type": "event"})

    def books(self) -> dict[str, Any]:
        """What rank 0 alone adds to a checkpoint; taken before the other ranks tell theirs.

        What the ledger calls finished here, all of them hold.
        """
        with self._control.lock:
            return {
                "study": fixed_settings(self._study),
                "epoch": self.contact.epoch,
                "ledger": self._ledger.state(),
                "proposals": self._proposals.state(),
                "validation": self._board.validation,
                "lost": self._board.lost,
            }

    def save(self, name: str, books: dict[str, Any], ranks: list[dict[str, Any]]) -> None:
        """Saves a checkpoint under `checkpoints/NAME`.

        Args:
            name: Name of the folder.
            books: Of `books()`.
            ranks: The state of each rank.
        """
        assert self._trainer is not None
        began = time.monotonic()
        folder = self._run_dir / "checkpoints" / name
        state = books | {"batches": self._trainer.batches, "ranks": ranks}
        try:
            save_checkpoint(folder, self._trainer.surrogate, self._trainer.optimizer, state)
        except RunError as error:
            self._control.report_failure(str(error))
            return
        self.event("checkpoint", path=str(folder), seconds=time.monotonic() - began)

    @property
    def leaving(self) -> bool:
        """Whether another server is to go on from here."""
        return self._control.handing_over and self._control.failure is None

    def end_books(self) -> dict[str, Any]:
        """The last `books()`: all ranks have ended their reception, and the sampler its work."""
        self._proposals.close()
        self._control.wait_for_last_reports()
        return self.books()

    def finish(
        self,
        stopped: str | None,
        books: dict[str, Any],
        ranks: list[dict[str, Any]],
        peak_megabytes: list[float],
        *,
        leave: bool,
    ) -> None:
        """Ends all threads, saves a checkpoint, and unless it only leaves writes the results.

        Args:
            stopped: Why the study was stopped early, or None.
            books: Of `end_books()`.
            ranks: The last state of each rank.
            peak_megabytes: Of each rank.
            leave: Whether another server is to go on from here.
        """
        assert self._trainer is not None
        if self._trainer.batches:
            self.save(LATEST if leave else FINAL, books, ranks)
        status, reason = "finished", None
        if stopped is not None:
            # The trainer may have heard of it from another rank, which gives no reason.
            status, reason = "stopped", self._control.stop_reason or stopped
        if self._control.failure:
            status, reason = "failed", self._control.failure
        elif leave:
            status = "left"
        elif stopped is None and (failure := self._ledger.failure()):
            status, reason = "failed", failure
        self.event("server_left" if leave else "run_finished", status=status)
        # The last reports of all ranks are in the control socket's queue: the thread reads them before it ends.
        self._control.finish(status, reason)
        self._heartbeats.close()
        if not leave:
            self._write_results(status, reason, peak_megabytes)
        self._log.close()
        self._tensorboard.close()

    def _write_results(self, status: str, reason: str | None, peak: list[float]) -> None:
        try:
            lines = "".join(json.dumps(line) + "\n" for line in self._lines())
            (self._run_dir / "simulations.jsonl").write_text(lines, encoding="utf-8")
            text = json.dumps(self._summary(status, reason, peak), indent=1)
            (self._run_dir / "summary.json").write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            message = f"{self._run_dir}: can't write the results: {error.strerror}"
            raise RunError(message) from error

    def _lines(self) -> list[dict[str, Any]]:
        for record in self._ledger.records:
            record.difficulty = self._proposals.difficulty(record.simulation)
        return [record.line(tuple(self._study.parameters)) for record in self._ledger.records]

    def _summary(self, status: str, reason: str | None, peak: list[float]) -> dict[str, Any]:
        trainer = self._trainer
        assert trainer is not None
        counts = self._ledger.counts()
        seconds = self._board.elapsed
        samples = self._board.samples()
        figures = self._proposals.statistics()
        return {
            "status": status,
            "reason": reason,
            "study": self._study.name,
            "wall_seconds": seconds,
            "setup_seconds": 0.0,
            "simulations": {k: counts[k] for k in ("planned", "completed", "failed", "retried")},
            "samples": samples,
            "withdrawn": self._board.withdrawn(),
            "training": {
                "device": trainer.device_name,
                "batches": trainer.batches,
                "samples_drawn": trainer.samples_drawn,
                "final_loss": None if math.isnan(trainer.loss) else trainer.loss,
                "starved_seconds": trainer.starved_seconds,
                "effective_share": trainer.effective_share,
            },
            "validation": {
                "nrmse": self._board.validation,
                "simulations": self._study.training.validation.simulations,
            },
            "sampler": {
                k: figures[k]
                for k in ("method", "suggested", "adaptive", "late", "generations", "seconds")
            },
            "throughput": {
                "samples_per_second": samples["received"] / seconds,
                "megabytes_per_second": self._board.megabytes / seconds,
            },
            "memory": {
                "peak_rss_megabytes_per_rank": peak,
                "promised_megabytes_per_rank": self._promised,
            },
        }


def _lost_since(state: dict[str, Any], status: dict[str, Any]) -> int:
    """Samples that earlier servers stored and no checkpoint knows, up to their last status (of each second)."""
    known = sum(rank["reservoir"]["counters"]["stored"] for rank in state["ranks"])
    stored = figure(status, "samples", "stored")
    since = 0 if math.isnan(stored) else int(stored) - known - state["lost"]
    return int(state["lost"]) + max(since, 0)


def _sampler_arguments(study: Study) -> dict[str, Any]:
    """The method's arguments, with those defaults that follow from the study."""
    arguments = dict(study.sampler.arguments)
    if study.sampler.method == "breed":
        held = study.reservoir.capacity * study.server.ranks // study.simulation.time_steps
        arguments.setdefault("capacity_simulations", max(held, 1))
    if study.sampler.method == "lhs":
        arguments.setdefault("size", study.simulation.count)
    if study.sampler.method == "table" and isinstance(arguments.get("points"), str):
        arguments["points"] = str(study.folder / arguments["points"])
    return arguments

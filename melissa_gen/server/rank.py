"""Runs one rank of the server from its start to the end of the study."""

import contextlib
import gc
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from melissa_gen.builders.descriptors import check_server_limit
from melissa_gen.builders.mesh import write_coordinates
from melissa_gen.errors import RunError, StudyError
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.json_messages import EXIT_HANDOVER
from melissa_gen.run_dir.checkpoint import partial_folder
from melissa_gen.run_dir.checkpoint_folder import FINAL, LATEST, SERVER_LOCK, rows_file
from melissa_gen.run_dir.locking import LockedError, held
from melissa_gen.run_dir.server_failure import write_server_failure
from melissa_gen.server.checkpointing import CheckpointWriter
from melissa_gen.server.child_process import StartedProcess
from melissa_gen.server.collectives import all_gather_json, barrier, broadcast_json
from melissa_gen.server.consumer import Consumer, Hooks
from melissa_gen.server.coordination.control_process import ControlProcess
from melissa_gen.server.coordination.events import JOINING, SAVING
from melissa_gen.server.early_service import EarlyService
from melissa_gen.server.peak_memory import peak_megabytes
from melissa_gen.server.rank_state import SavedPart
from melissa_gen.server.reception import Reception, SampleSaver
from melissa_gen.server.recipient import bind
from melissa_gen.server.setup import Checkpoint, RankSetup
from melissa_gen.server.training.thread_placement import (
    shorten_gil_switch_interval,
    split_cores,
)

__all__ = ["StartedProcesses", "run_rank"]


class StartedProcesses(NamedTuple):
    """The processes that a rank has started.

    Attributes:
        control: The control process; None on other ranks than 0.
        ingest: The ingest process; None in a run without training.
    """

    control: StartedProcess | None = None
    ingest: StartedProcess | None = None


def run_rank(
    run_dir: Path,
    world: Any,
    started: StartedProcesses,
    warnings: Callable[[], list[str]] = list,
) -> int:
    """Runs one rank of the server to the end of the study.

    A server whose epoch in `run.json` is above 0 continues from the newest whole checkpoint.

    Args:
        run_dir: The run directory, with `study.yaml` and `run.json`.
        world: The mpi4py communicator of all ranks; only this thread uses it, and later only without training.
        started: The processes of this rank.
        warnings: Returns the warnings of this process since the last call; those of all ranks are shown.

    Returns:
        The exit status: 0, or `EXIT_HANDOVER` if another server continues.

    Raises:
        RunError: An earlier server of the run is still alive, or this one can't start.
    """
    with contextlib.ExitStack() as stack:
        control = None
        if started.control is not None:
            stack.enter_context(_server_lock(run_dir))
            control = ControlProcess(run_dir, started.control, partial(_abort, world, run_dir))
        setup = RankSetup.read(run_dir, world.Get_rank(), world.Get_size())
        check_server_limit(setup.study)
        if setup.study.server.pin_ingest:
            setup = replace(setup, ingest_cores=_reserve_ingest_core(world))
        shorten_gil_switch_interval()
        contact = _secrets(setup, world)
        if setup.rank == 0 and contact.runtime_folder:
            stack.callback(shutil.rmtree, contact.runtime_folder, ignore_errors=True)
        bound = bind(setup, world, contact, started.ingest, warnings)
        ranks = all_gather_json(world, [bound.endpoint, bound.machine])
        data, machines = (tuple(column) for column in zip(*ranks, strict=True))
        contact = replace(contact, data=data, machines=machines)
        checkpoint, damages = Checkpoint.find(setup, world)
        if control is not None:
            contact = control.open(setup, contact, checkpoint)
        contact = Contact.from_json(broadcast_json(world, contact.to_json()))
        used = bound.open(contact, checkpoint, control)
        early = _early_service(setup, world, checkpoint, control)
        rank = _Rank(setup, used.consumer(), used.reception, control)
        rank.start(checkpoint, damages, early)
        # The objects created so far live until the end; the garbage collector does not have to check them again.
        gc.freeze()
        gc.enable()
        handover = _run(rank)
        return EXIT_HANDOVER if handover else 0


class _Rank:
    """A rank after its setup: starts serving, runs the consumer, and ends all parts in order."""

    def __init__(
        self,
        setup: RankSetup,
        consumer: Consumer,
        reception: Reception,
        control: ControlProcess | None,
    ) -> None:
        self._setup, self._consumer, self._reception = setup, consumer, reception
        self._control, self._collectives = control, consumer.collectives
        self._writer = CheckpointWriter(setup.rank, consumer.shared, self._save)

    def start(
        self, checkpoint: Checkpoint | None, damages: list[str], early: EarlyService | None
    ) -> None:
        """Prepares the consumer, and publishes the contact of the server when all ranks are ready.

        Args:
            checkpoint: The checkpoint to continue from, or None.
            damages: A sentence for each checkpoint that can't be used.
            early: Publishes the contact; None: this method does.
        """
        control = self._control
        if early is not None:
            early.wait()
        hooks = Hooks(
            _no_event,
            _no_failure,
            self._begin_checkpoint,
            lambda: self._writer.ready,
        )
        if control is not None:
            hooks = replace(
                hooks,
                event=control.event,
                fail=control.fail,
                reached=control.reach_goal,
            )
        self._consumer.attach(hooks)
        if checkpoint is not None:
            states = checkpoint.rank_states()
            # All ranks train in lockstep. A rank that is new has only no random state yet.
            fresh = states[0] | {"random": None, "cuda_random": None}
            state = states[self._setup.rank] if self._setup.rank < len(states) else fresh
            self._consumer.restore(state, checkpoint.folder, checkpoint.state)
        memory = self._reception.counters()
        restored = self._collectives.gather({"samples": memory["seen"] + memory["unseen"]})
        if early is None:
            samples = sum(one["samples"] for one in restored)
            _serve(self._setup, control, self._consumer.progress, samples)
        if control is not None:
            used = f"{checkpoint.folder} is used" if checkpoint else "the run begins anew"
            if not self._setup.purpose.solves:
                # The client library is needed by no other server.
                from melissa_gen.server.recorded_data import start_recorded_data

                start_recorded_data(self._setup, control.fail)
            for warning in (*self._consumer.warnings, *(f"{d}; {used}" for d in damages)):
                control.warn(warning)
            control.promise(*_memory_limits(self._setup))

    def run(self) -> bool:
        """Runs the consumer to its end and writes all results; returns whether another server continues."""
        control, consumer = self._control, self._consumer
        stopped = consumer.run()
        leaving = stopped is not None and control is not None and control.handing_over
        handover = self._collectives.from_rank_0(leaving)
        if not handover:
            consumer.write_results()
        self._writer.cancel()
        name = LATEST if handover else FINAL
        saver = self._reception.close(self._rows_file(name))
        # From here on, all ranks have sent their last reports.
        used = self._collectives.gather({"progress": consumer.progress})
        saves, part = any(one["progress"] for one in used), SavedPart()
        if control is not None:
            control.end_control()
        if saves:
            consumer.prepare_checkpoint()
            if control is not None:
                control.begin_checkpoint(name, consumer)
        self._collectives.barrier()
        if saves:
            part = self._writer.write(self._partial(name), self._state(saver), saver)
        status = "finished"
        if control is not None:
            status, _ = control.outcome(stopped, consumer.flaw, handover=handover)
        complete = self._collectives.from_rank_0(status == "finished")
        consumer.close(complete=complete)
        self._reception.finish(self._collectives, complete=complete)
        sections = self._reception.summary()
        peak = peak_megabytes() + self._reception.end()
        ends = self._collectives.gather({"part": list(part), "peak": peak})
        if control is not None:
            if saves:
                control.publish(name, [SavedPart(*end["part"]) for end in ends])
            results = consumer.summary() | sections
            peaks = [end["peak"] for end in ends]
            control.finish(stopped, consumer.flaw, peaks, results, handover=handover)
        self._collectives.barrier()
        self._collectives.close()
        self._reception.leave()
        return handover

    def _save(self, partial: Path, last: bool) -> None:
        """Waits until the files that the state of a checkpoint names are on disk, and writes the state of ingest."""
        self._consumer.sync()
        self._reception.save(partial, publish=not last)

    def _begin_checkpoint(self) -> None:
        """Takes the state of all ranks, and begins to write it beside training (collective)."""
        control = self._control
        self._consumer.prepare_checkpoint()
        publish = None
        if control is not None:
            control.begin_checkpoint(LATEST, self._consumer)
            publish = control.publish_when_written
        self._consumer.shared.begin_piece(JOINING)
        self._collectives.barrier()
        self._consumer.shared.begin_piece(SAVING)
        saver = self._reception.state(self._rows_file(LATEST))
        self._writer.start(self._partial(LATEST), self._state(saver), saver, publish)

    def _state(self, saver: SampleSaver | None) -> dict[str, Any]:
        return self._consumer.state() | {"rows_saved": saver is not None}

    def _partial(self, name: str) -> Path:
        return partial_folder(self._setup.run_dir / "checkpoints" / name)

    def _rows_file(self, name: str) -> Path | None:
        saves = self._setup.study.reservoir.checkpoint
        return rows_file(self._partial(name), self._setup.rank) if saves else None


@contextlib.contextmanager
def _server_lock(run_dir: Path) -> Iterator[None]:
    """Holds the lock of the run's server."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(run_dir / SERVER_LOCK))
        except LockedError as holder:
            message = f"an earlier server of {run_dir} is still alive: {holder}"
            raise RunError(message) from None
        yield


def _reserve_ingest_core(world: Any) -> set[int] | None:
    """Binds this thread (the trainer) to all cores except one, which is returned; collective."""
    from mpi4py import MPI

    neighbors = world.Split_type(MPI.COMM_TYPE_SHARED)
    rank, ranks = neighbors.Get_rank(), neighbors.Get_size()
    neighbors.Free()
    trainer, ingest = split_cores(os.sched_getaffinity(0), os.cpu_count() or 1, rank, ranks)
    os.sched_setaffinity(0, trainer)
    return ingest


def _secrets(setup: RankSetup, world: Any) -> Contact:
    """Agrees on the secrets of this server (collective).

    They are exchanged by MPI, so that they are not stored in a network service or a file.
    """
    study, fresh = setup.study, None
    if setup.rank == 0:
        encrypt = study.server.encrypt == "all"
        fresh = Contact.new(
            setup.epoch, socket.gethostname(), ipc=not study.over_tcp, encrypt_data=encrypt
        ).to_json()
    return Contact.from_json(broadcast_json(world, fresh))


def _abort(world: Any, run_dir: Path, reason: str) -> None:
    """Ends all ranks of the server at once, and leaves the reason for the launcher."""
    write_server_failure(run_dir, reason)
    world.Abort(1)


def _run(rank: _Rank) -> bool:
    """Runs a rank that is prepared; returns whether another server continues.

    Raises:
        RunError: The study has failed. The launcher takes a `StudyError` for the refusal of a study that has not begun.
    """
    try:
        return rank.run()
    except StudyError as error:
        raise RunError(str(error)) from error


def _memory_limits(setup: RankSetup) -> tuple[float, float]:
    """Returns the memory limits of each rank and of the control process (10**6 bytes)."""
    # Imported here because it takes a while, and clients already send samples.
    from melissa_gen.builders.memory import control_megabytes, promised_megabytes, stream_megabytes

    study, purpose = setup.study, setup.purpose
    each = promised_megabytes(study) if setup.trains else stream_megabytes(study)
    return each, control_megabytes(study, samples=purpose.trains and not purpose.data)


def _early_service(
    setup: RankSetup,
    world: Any,
    checkpoint: Checkpoint | None,
    control: ControlProcess | None,
) -> EarlyService | None:
    """Lets clients send samples before the training is prepared, while this process imports torch (collective).

    On a cluster, loading the libraries of torch from a busy file system may keep all threads of the process waiting for
    longer than a client waits for an answer, and jobs wait in a queue for much longer than this takes.
    """
    local = setup.study.launcher.backend == "local"
    if not (setup.trains and setup.purpose.solves and checkpoint is None and local):
        return None
    # The ingest of all ranks has started.
    barrier(world)
    return EarlyService(setup.run_dir, partial(_serve, setup, control))


def _serve(
    setup: RankSetup, control: ControlProcess | None, batches: int = 0, restored: int = 0
) -> None:
    """Publishes the contact of the server, whose ranks can all receive.

    Args:
        setup: The study and this rank.
        control: The control process; None on other ranks than 0.
        batches: Batches trained by earlier servers.
        restored: Samples of earlier servers that are in memory again.
    """
    if control is None:
        return
    write_coordinates(setup.study, setup.run_dir)
    control.start_serving(batches, restored)


def _no_event(event: str, **fields: Any) -> None:
    """Does nothing: only rank 0 writes events."""


def _no_failure(reason: str) -> None:
    """Does nothing: ranks other than 0 report failures through their ingest."""

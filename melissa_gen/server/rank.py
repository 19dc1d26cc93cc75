"""Sets one server rank up, trains, and puts everything away again."""

import contextlib
import json
import os
import resource
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import zmq
from torch._C._distributed_c10d import PrefixStore, TCPStore

from melissa_gen import reservoir as reservoirs
from melissa_gen.builders.memory import field_specs, staging_slots
from melissa_gen.builders.surrogate import build_surrogate, clock
from melissa_gen.errors import RunError
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.control import LEFT
from melissa_gen.protocol.shared import this_machine
from melissa_gen.protocol.sockets import bind_socket
from melissa_gen.protocol.wire import FieldSpec
from melissa_gen.run_dir.checkpoint import load_model, load_optimizer
from melissa_gen.run_dir.checkpoint_folder import (
    LATEST,
    SERVER_LOCK,
    check_study,
    newest,
    read_state,
)
from melissa_gen.run_dir.locking import LockedError, held
from melissa_gen.server.ingest.assembler import Assembler
from melissa_gen.server.ingest.receiver import Ingest, RankState
from melissa_gen.server.listening import listening_address, listening_interface
from melissa_gen.server.training.cores import favour_the_trainer, split_cores, started_on
from melissa_gen.server.training.device import device_of
from melissa_gen.server.training.trainer import Hooks, Trainer
from melissa_gen.server.training.validation import Validation
from melissa_gen.study import Study, load_study
from melissa_gen.surrogates import Surrogate

__all__ = ["run_rank"]

_HEADER_ROOM = 65_536


def run_rank(run_dir: Path, world: Any) -> int:
    """Runs one rank of the server to the end of the study.

    A server whose epoch in `run.json` is above 0 goes on from the newest whole checkpoint.

    Args:
        run_dir: The run directory, with `study.yaml` and `run.json`.
        world: The mpi4py communicator of all ranks; used to meet, then torch.distributed takes over.

    Returns:
        The exit status: 0, or `LEFT` if another server is to go on.
    """
    with contextlib.ExitStack() as stack:
        if world.Get_rank() == 0:
            try:
                stack.enter_context(held(run_dir / SERVER_LOCK))
            except LockedError as holder:
                message = f"an earlier server of {run_dir} is still alive: {holder}"
                raise RunError(message) from None
        return _run_rank(run_dir, world)


def _run_rank(run_dir: Path, world: Any) -> int:
    began = time.monotonic()
    run = json.loads((run_dir / "run.json").read_text())
    study = load_study(run_dir / "study.yaml", folder=Path(run["study_folder"]))
    rank, ranks = world.Get_rank(), world.Get_size()
    beside = _keep_off_the_trainer(study, world)
    favour_the_trainer()
    torch.set_num_threads(study.server.threads)
    torch.manual_seed(study.seed)
    device, backend, complaint = device_of(study, world)
    store = _meet(study, world, device, backend)

    context: zmq.Context[Any] = zmq.Context()
    with started_on(beside):
        contact, data = _open_data_socket(study, store, context, rank, int(run["epoch"]))
    try:
        return _serve(
            study,
            run_dir,
            rank,
            ranks,
            device,
            store,
            context,
            contact,
            data,
            began,
            beside,
            complaint,
        )
    finally:
        if rank == 0 and contact.runtime_folder:
            shutil.rmtree(contact.runtime_folder, ignore_errors=True)


def _serve(
    study: Study,
    run_dir: Path,
    rank: int,
    ranks: int,
    device: torch.device,
    store: TCPStore,
    context: zmq.Context[Any],
    contact: Contact,
    data: zmq.Socket[bytes],
    began: float,
    beside: set[int] | None,
    complaint: str | None,
) -> int:
    """Everything from the exchange of addresses to the end of the study."""
    coordinator = None
    damages: list[str] = []
    if rank == 0:
        found, damages = newest(run_dir) if contact.epoch else (None, [])
        store.set("checkpoint", str(found or ""))
    folder = Path(name) if (name := store.get("checkpoint").decode()) else None
    saved = read_state(folder) if folder else None
    if folder and saved:
        check_study(study, saved, folder)
    if rank == 0:
        from melissa_gen.server.coordination.coordinator import (
            Coordinator,  # sampler and TensorBoard: memory
        )

        contact = replace(
            contact,
            data=tuple(store.get(f"data/{r}").decode() for r in range(ranks)),
            machines=tuple(store.get(f"machine/{r}").decode() for r in range(ranks)),
        )
        with started_on(beside):
            coordinator = Coordinator(
                study,
                run_dir,
                context,
                contact,
                began,
                (folder, saved) if folder and saved else None,
            )
        contact = coordinator.contact
        store.set("contact", contact.to_json())
    contact = Contact.from_json(store.get("contact").decode())

    torch.manual_seed(study.seed)  # the same weights everywhere
    surrogate = build_surrogate(study)
    if folder:
        load_model(folder, surrogate)
    torch.manual_seed(study.seed + 1 + rank)
    rows = reservoirs.SlotStore(
        field_specs(study),
        study.reservoir.capacity + staging_slots(study),
        len(study.parameters) + 1,
    )
    policy = reservoirs.create(
        study.reservoir.policy,
        rows,
        study.reservoir.capacity,
        study.reservoir.watermark,
        study.seed + rank,
        "difficulty" if study.sampler.method == "r3" else study.reservoir.eviction,
        study.reservoir.draws,
    )
    assembler = _assembler(study, rows, rank, ranks, contact.epoch)
    if saved:
        policy.restore(saved["ranks"][rank]["reservoir"])
        assembler.restore(saved["ranks"][rank]["assembler"])
    state = RankState()
    ingest = Ingest(
        context,
        contact,
        data,
        assembler,
        policy,
        state,
        rank,
        clock(study),
    )
    with started_on(beside):
        ingest.start()
    validation = None
    if (run_dir / "validation.h5").exists():
        validation = Validation(run_dir / "validation.h5", list(study.parameters), device)
    event: Callable[..., Any] = coordinator.event if coordinator else _no_event
    between_steps = coordinator.show_sampler(surrogate) if coordinator else _no_snapshot

    def rank_states() -> list[dict[str, Any]]:
        return _gather(trainer.state() | ingest.state(), device)

    def checkpoint() -> None:
        books = coordinator.books() if coordinator else {}
        dist.barrier()
        found = rank_states()
        if coordinator is not None:
            coordinator.save(LATEST, books, found)

    trainer = Trainer(
        study,
        surrogate,
        policy,
        state,
        validation,
        device,
        Hooks(ingest.made_room, event, checkpoint, between_steps),
    )
    if folder and saved:
        trainer.restore(saved["ranks"][rank])
        load_optimizer(folder, trainer.optimizer, saved["optimizer"])
    dist.barrier()
    if coordinator is not None:
        with started_on(beside):
            coordinator.open_for_business(trainer)
        if complaint:
            coordinator.warn(complaint)
        for damage in damages:
            coordinator.warn(f"{damage}; " + (f"{folder} is used" if folder else "begun anew"))
    stopped = trainer.run()

    leave = _from_rank_0(stopped is not None and bool(coordinator and coordinator.leaving), device)
    if validation is not None and trainer.batches and not leave:
        units = {name: f.unit for name, f in study.simulation.fields.items()}
        validation.save_cases(surrogate, run_dir / "validation_errors.npz", units)
    memory = torch.zeros(ranks, dtype=torch.float64, device=device)  # NCCL knows no other
    memory[rank] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    dist.all_reduce(memory)
    ingest.close()
    dist.barrier()  # all last reports are sent
    states = rank_states()
    if coordinator is not None:
        books = coordinator.end_books()
        coordinator.finish(stopped, books, states, memory.tolist(), leave=leave)
    dist.barrier()
    dist.destroy_process_group()
    context.term()
    return LEFT if leave else 0


def _gather(state: dict[str, Any], device: torch.device) -> list[dict[str, Any]]:
    """Returns the state (JSON types) of every rank, in order (collective)."""
    raw = torch.frombuffer(bytearray(json.dumps(state).encode()), dtype=torch.uint8).to(device)
    sizes = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=device)
    sizes[dist.get_rank()] = len(raw)
    dist.all_reduce(sizes)
    padded = torch.zeros(int(sizes.max()), dtype=torch.uint8, device=device)
    padded[: len(raw)] = raw
    found = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(found, padded)
    texts = [t[:size].cpu().numpy().tobytes() for t, size in zip(found, sizes, strict=True)]
    return [json.loads(text) for text in texts]


def _from_rank_0(value: bool, device: torch.device) -> bool:
    """Returns rank 0's value on every rank (collective)."""
    flag = torch.tensor([value], dtype=torch.int64, device=device)
    dist.broadcast(flag, src=0)
    return bool(flag.item())


def _keep_off_the_trainer(study: Study, world: Any) -> set[int] | None:
    """With `server.pin_ingest` this thread, the trainer's, leaves a core to all others; returns that core."""
    if not study.server.pin_ingest:
        return None
    from mpi4py import MPI

    neighbours = world.Split_type(MPI.COMM_TYPE_SHARED)
    rank, ranks = neighbours.Get_rank(), neighbours.Get_size()
    neighbours.Free()
    trainer, beside = split_cores(os.sched_getaffinity(0), os.cpu_count() or 1, rank, ranks)
    os.sched_setaffinity(0, trainer)
    return beside


def _meet(study: Study, world: Any, device: torch.device, backend: str) -> TCPStore:
    """Starts torch.distributed over all ranks; returns its store, by which they exchange addresses."""
    address = listening_address(study) or "127.0.0.1"
    where = np.zeros(5, dtype=np.int32)
    timeout = timedelta(seconds=120)
    if world.Get_rank() == 0:
        store = TCPStore(address, 0, is_master=True, wait_for_workers=False, timeout=timeout)
        where[:] = [*map(int, address.split(".")), store.port]
    world.Bcast(where, root=0)
    if world.Get_rank() != 0:
        host = ".".join(map(str, where[:4].tolist()))
        store = TCPStore(host, int(where[4]), is_master=False, timeout=timeout)
    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", listening_interface(study))
    dist.init_process_group(
        backend,
        store=PrefixStore("ddp", store),
        rank=world.Get_rank(),
        world_size=world.Get_size(),
        device_id=device if backend == "nccl" else None,
    )
    return store


def _open_data_socket(
    study: Study, store: TCPStore, context: zmq.Context[Any], rank: int, epoch: int
) -> tuple[Contact, zmq.Socket[bytes]]:
    """Agrees on the incarnation's secrets, binds this rank's data socket, and publishes its endpoint."""
    if rank == 0:
        everywhere = study.server.encrypt == "all"
        fresh = Contact.new(
            epoch,
            socket.gethostname(),
            ipc=not study.over_tcp,
            encrypt_data=everywhere,
        )
        store.set("secrets", fresh.to_json())
    contact = Contact.from_json(store.get("secrets").decode())
    largest = max(
        int(np.prod(shape)) * np.dtype(dtype).itemsize
        for shape, dtype in field_specs(study).values()
    )
    data, endpoint = bind_socket(
        context,
        contact,
        f"data-{rank}",
        listening_address(study),
        limit=largest + _HEADER_ROOM,
        queue=study.credit * (1 + len(study.simulation.fields)) + 8,
        data=True,
        ports=study.server.ports,
    )
    store.set(f"data/{rank}", endpoint)
    store.set(f"machine/{rank}", this_machine() if study.server.shared_memory else "")
    return contact, data


def _assembler(
    study: Study, rows: reservoirs.SlotStore, rank: int, ranks: int, epoch: int
) -> Assembler:
    simulation = study.simulation
    fields = [FieldSpec(name, f.dtype, tuple(f.shape)) for name, f in simulation.fields.items()]
    return Assembler(
        fields,
        simulation.time_steps,
        simulation.count,
        simulation.retries + 1 + epoch,  # each earlier server may have left one unfinished
        rank,
        ranks,
        rows,
        study.credit,
    )


def _no_event(event: str, **fields: Any) -> None:
    """Ranks other than 0 write no events."""


def _no_snapshot(surrogate: Surrogate, batches: int) -> None:
    """Rank 0 alone has a sampler to show the weights to; they are the same everywhere."""

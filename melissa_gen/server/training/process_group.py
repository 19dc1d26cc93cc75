"""Communication between the ranks of the server by torch.distributed."""

import json
import logging
import os
import socket
from datetime import timedelta
from typing import Any

import psutil
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore, PrefixStore, Store, TCPStore

from melissa_gen.protocol.listeners import refuse_connections, tcp_listeners
from melissa_gen.server.collectives import Collectives, barrier, broadcast_json
from melissa_gen.server.listening import listening_address, listening_interface
from melissa_gen.study import Study

__all__ = ["TorchCollectives", "join_process_group"]

_log = logging.getLogger(__name__)

_RENDEZVOUS = timedelta(seconds=120)
_COLLECTIVE = timedelta(days=1)
"""Longest wait of a rank for another one, which may validate for hours. Long before, the control process notices a
rank that is lost or does not move, and the launcher notices when rank 0 is lost."""


def join_process_group(study: Study, world: Any, device: torch.device, backend: str) -> None:
    """Starts torch.distributed over all ranks (collective).

    All its sockets are bound to the interface of the run. They authenticate no peer. Contacts and keys are therefore
    exchanged by MPI, and with gloo, which connects all ranks at once, the sockets then accept no further connection.
    NCCL connects ranks later, when they first need it.

    Args:
        study: The study.
        world: The mpi4py communicator of all ranks.
        device: This rank's device.
        backend: `gloo` or `nccl`.
    """
    interface = listening_interface(study)
    for library in ("GLOO", "NCCL"):
        _bind_library(library, interface, chosen=study.server.interface != "auto")
    before = tcp_listeners()
    dist.init_process_group(
        backend,
        store=PrefixStore("ddp", _rendezvous_store(listening_address(study), world)),
        rank=world.Get_rank(),
        world_size=world.Get_size(),
        timeout=_COLLECTIVE,
        device_id=device if backend == "nccl" else None,
    )
    if backend == "gloo":
        # A rank returns once it has connected to all others, which may not be connected to each other yet.
        barrier(world)
        for kept in refuse_connections(tcp_listeners() - before):
            _log.warning("torch.distributed keeps accepting connections at %s, port %d", *kept[1:])


def _rendezvous_store(address: str, world: Any) -> Store:
    """Returns the store through which the ranks find each other (collective); it holds no secret."""
    if world.Get_size() == 1:
        return HashStore()
    address, port = address or "127.0.0.1", 0
    if world.Get_rank() == 0:
        # Without a socket of ours the store would listen on all interfaces.
        listening = socket.create_server((address, 0))
        port = listening.getsockname()[1]
        store = TCPStore(
            address,
            port,
            is_master=True,
            wait_for_workers=False,
            timeout=_RENDEZVOUS,
            master_listen_fd=listening.detach(),
        )
    address, port = broadcast_json(world, [address, port])
    if world.Get_rank() != 0:
        store = TCPStore(address, port, is_master=False, timeout=_RENDEZVOUS)
    return store


def _bind_library(library: str, interface: str, *, chosen: bool) -> None:
    """Binds the sockets of a library to the interface of the run.

    A variable of the user's environment is kept if the study leaves the choice open and the interface exists.
    """
    variable = f"{library}_SOCKET_IFNAME"
    users = os.environ.get(variable)
    if users == interface or (users is not None and not chosen and users in psutil.net_if_addrs()):
        return
    if users is not None:
        _log.warning("%s is '%s'; the server uses the interface '%s'", variable, users, interface)
    os.environ[variable] = interface


class TorchCollectives(Collectives):
    """The collectives of ranks in a torch process group.

    Args:
        device: This rank's device; NCCL requires tensors on it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def barrier(self) -> None:
        """Waits until all ranks have called this method."""
        dist.barrier()

    def gather(self, value: dict[str, Any]) -> list[dict[str, Any]]:
        """Returns the values (JSON types) of all ranks, in order."""
        raw = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        raw = raw.to(self._device)
        sizes = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=self._device)
        sizes[dist.get_rank()] = len(raw)
        dist.all_reduce(sizes)
        padded = torch.zeros(int(sizes.max()), dtype=torch.uint8, device=self._device)
        padded[: len(raw)] = raw
        found = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(found, padded)
        texts = [t[:size].cpu().numpy().tobytes() for t, size in zip(found, sizes, strict=True)]
        return [json.loads(text) for text in texts]

    def from_rank_0(self, value: bool) -> bool:
        """Returns rank 0's value on every rank."""
        flag = torch.tensor([value], dtype=torch.int64, device=self._device)
        dist.broadcast(flag, src=0)
        return bool(flag.item())

    def close(self) -> None:
        """Ends the process group."""
        dist.destroy_process_group()

"""Communication between the ranks of the server by torch.distributed."""

import json
import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, TCPStore

from melissa_gen.server.collectives import Collectives, broadcast_json
from melissa_gen.server.listening import listening_address, listening_interface
from melissa_gen.study import Study

__all__ = ["TorchCollectives", "join_process_group"]

_RENDEZVOUS = timedelta(seconds=120)


def join_process_group(study: Study, world: Any, device: torch.device, backend: str) -> None:
    """Starts torch.distributed over all ranks (collective).

    The store only serves the rendezvous: contacts and keys are exchanged by MPI and never stored in it.

    Args:
        study: The study.
        world: The mpi4py communicator of all ranks.
        device: This rank's device.
        backend: `gloo` or `nccl`.
    """
    rank, ranks = world.Get_rank(), world.Get_size()
    host, port = listening_address(study) or "127.0.0.1", 0
    if rank == 0:
        store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=_RENDEZVOUS)
        port = store.port
    host, port = broadcast_json(world, [host, port])
    if rank != 0:
        store = TCPStore(host, port, is_master=False, timeout=_RENDEZVOUS)
    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", listening_interface(study))
    dist.init_process_group(
        backend,
        store=PrefixStore("ddp", store),
        rank=rank,
        world_size=ranks,
        device_id=device if backend == "nccl" else None,
    )


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

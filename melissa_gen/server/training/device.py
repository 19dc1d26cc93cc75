"""Selection of the device of each rank and of the back end for the exchange of gradients."""

import os
import socket
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from melissa_gen.errors import RunError

__all__ = ["agree", "device_of", "idle"]

_LOCAL_RANK = ("MPI_LOCALRANKID", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "LOCAL_RANK")
_NAME_BYTES = 256


def device_of(
    wanted: Literal["auto", "cpu", "cuda"], world: Any
) -> tuple[torch.device, str, str | None]:
    """Chooses this rank's device together with all other ranks.

    A scheduler that binds GPUs to tasks makes a single GPU visible to each rank, as number 0. If a rank sees several
    GPUs, it takes the one with its number on the node.

    Args:
        wanted: `server.device`.
        world: The mpi4py communicator of all ranks.

    Returns:
        The device; the back end of torch.distributed (nccl if each rank has its own GPU, else gloo); and a sentence if
        there are GPUs that are not used, else None.

    Raises:
        RunError: `server.device` is cuda, and a rank has no GPU.
    """
    there = wanted != "cpu" and torch.cuda.is_available()
    number = _local_rank(world.Get_rank()) % torch.cuda.device_count() if there else 0
    host = socket.gethostname()
    card = f"{host} {torch.cuda.get_device_properties(number).uuid}" if there else f"{host} "
    cards = _names(card, world)
    kind, backend = agree(wanted, cards)
    if kind == "cpu":
        return torch.device("cpu"), backend, idle(cards)
    torch.cuda.set_device(number)
    return torch.device("cuda", number), backend, None


def agree(
    wanted: Literal["auto", "cpu", "cuda"], cards: Sequence[str]
) -> tuple[Literal["cpu", "cuda"], Literal["gloo", "nccl"]]:
    """Selects the kind of device and the back end for all ranks.

    Args:
        wanted: `server.device`.
        cards: `HOST CARD` of each rank; `HOST ` if the rank has no GPU.

    Raises:
        RunError: `cuda` is requested, and a rank has no GPU.

    Example:
        >>> agree("auto", ["n1 a", "n1 b"])
        ('cuda', 'nccl')
        >>> agree("auto", ["n1 a", "n1 a"])
        ('cpu', 'gloo')
    """
    without = [f"{rank} on {card.strip()}" for rank, card in enumerate(cards) if card[-1] == " "]
    own = len(set(cards)) == len(cards)
    if wanted == "cuda" and without:
        msg = (
            f"server.device is 'cuda', but torch finds no CUDA device in rank {', '.join(without)}; "
            "legal there: cpu, auto (does the server's job request GPUs, as by launcher.server_jobs.gpus_per_task?)"
        )
        raise RunError(msg)
    if wanted == "cpu" or without or (wanted == "auto" and not own):
        return "cpu", "gloo"
    # NCCL does not support two ranks on one GPU.
    return "cuda", "nccl" if own else "gloo"


def idle(cards: Sequence[str]) -> str | None:
    """Returns a sentence about GPUs that are not used because all ranks train on the CPU; None without GPUs.

    Args:
        cards: As for `agree`.

    Example:
        >>> idle(["n1 a", "n1 a"])
        '2 server ranks see 1 GPU, so that all train on the CPU; to use it: server.ranks=1, or server.device=cuda'
    """
    there = {card for card in cards if card[-1] != " "}
    if not there:
        return None
    ways = "or server.device=cuda" if all(card in there for card in cards) else "or a GPU for each"
    found, it = f"{len(there)} GPU{'s' * (len(there) > 1)}", "it" if len(there) == 1 else "them"
    return (
        f"{len(cards)} server ranks see {found}, so that all train on the CPU; "
        f"to use {it}: server.ranks={len(there)}, {ways}"
    )


def _names(mine: str, world: Any) -> list[str]:
    """Returns the names of all ranks (collective); they are exchanged as bytes of a fixed length."""
    ours = np.zeros((world.Get_size(), _NAME_BYTES), np.uint8)
    raw = np.frombuffer(mine.encode()[:_NAME_BYTES], np.uint8)
    line = np.zeros(_NAME_BYTES, np.uint8)
    line[: len(raw)] = raw
    world.Allgather(line, ours)
    return [bytes(row).rstrip(b"\0").decode() for row in ours]


def _local_rank(rank: int) -> int:
    for name in _LOCAL_RANK:
        if (text := os.environ.get(name, "")).isdigit():
            return int(text)
    return rank

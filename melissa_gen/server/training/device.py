"""Which device each rank trains on, and by what the ranks exchange gradients."""

import os
import socket
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from melissa_gen.errors import RunError
from melissa_gen.study import Study

__all__ = ["agree", "device_of", "idle"]

_LOCAL_RANK = ("MPI_LOCALRANKID", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "LOCAL_RANK")
_NAME_BYTES = 256


def device_of(study: Study, world: Any) -> tuple[torch.device, str, str | None]:
    """Chooses this rank's device together with all other ranks.

    A scheduler that binds GPUs to tasks shows each rank its own alone, as number 0; where a rank sees several, its
    number on the node chooses.

    Args:
        study: Its `server.device` says what is wanted.
        world: The mpi4py communicator of all ranks.

    Returns:
        The device; the torch.distributed backend, nccl where each rank has a GPU of its own, else gloo; and a sentence
        where there are GPUs that are not used.

    Raises:
        RunError: `server.device` is cuda, and some rank has none.
    """
    there = study.server.device != "cpu" and torch.cuda.is_available()
    number = _local_rank(world.Get_rank()) % torch.cuda.device_count() if there else 0
    host = socket.gethostname()
    card = f"{host} {torch.cuda.get_device_properties(number).uuid}" if there else f"{host} "
    cards = _names(card, world)
    kind, backend = agree(study.server.device, cards)
    if kind == "cpu":
        return torch.device("cpu"), backend, idle(cards)
    torch.cuda.set_device(number)
    return torch.device("cuda", number), backend, None


def agree(
    wanted: Literal["auto", "cpu", "cuda"], cards: Sequence[str]
) -> tuple[Literal["cpu", "cuda"], Literal["gloo", "nccl"]]:
    """Decides for all ranks alike.

    Args:
        wanted: `server.device`.
        cards: `HOST CARD` of each rank; `HOST ` where it has none.

    Raises:
        RunError: `cuda` is wanted, and some rank has none.

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
            "legal there: cpu, auto (does the server's job ask for GPUs, as by launcher.server_jobs.gpus_per_task?)"
        )
        raise RunError(msg)
    if wanted == "cpu" or without or (wanted == "auto" and not own):
        return "cpu", "gloo"
    return "cuda", "nccl" if own else "gloo"  # NCCL refuses two ranks on one card


def idle(cards: Sequence[str]) -> str | None:
    """What to say of GPUs that ranks on the CPU leave alone; None where there are none.

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
    """Exchanges names as bytes of a fixed length."""
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

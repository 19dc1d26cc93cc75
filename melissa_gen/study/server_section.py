"""The section of the training server: ranks, device and network."""

from typing import Annotated, Literal

from pydantic import Field

from melissa_gen.study.base_section import Section
from melissa_gen.units import Duration

__all__ = ["ServerSection"]

Port = Annotated[int, Field(ge=1024, lt=2**16)]


class ServerSection(Section):
    """The training server."""

    ranks: int = Field(default=1, gt=0, lt=2**16)
    """MPI ranks of the server. Each simulation belongs to one rank, which trains a replica of the network on its
    samples, records them, and has its own part of the statistics; the parts are merged."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: the GPU that a rank has for itself, else the CPU; `cuda`: a GPU, which ranks may share; `cpu`."""
    transport: Literal["auto", "ipc", "tcp"] = "auto"
    """`ipc` needs one machine; `auto` is ipc with the local back end, tcp with all others."""
    interface: str = "auto"
    """Network interface that tcp sockets bind to; `auto`: loopback with the local back end, otherwise the
    interface of the address that the node's name resolves to."""
    ports: Annotated[list[Port], Field(min_length=2, max_length=2)] | None = None
    """First and last port that tcp sockets may use, for example behind a firewall; none is any free port."""
    encrypt: Literal["all", "control"] = "all"
    """On tcp: CURVE on every socket, or on the control sockets only; clients then log in to the data sockets with the
    run's token."""
    shared_memory: bool = True
    """Read the fields of clients on a rank's own machine from their memory instead of through sockets."""
    credit: int | None = Field(default=None, gt=0, le=8192)
    """Time steps that one client rank may have in flight to one server rank; none is 8 messages (`chunk_steps`), but
    no more than one simulation has or 8 MB hold; at least 16, of large fields 4."""
    chunk_steps: int | None = Field(default=None, gt=0, le=1024)
    """Most consecutive time steps that a client sends in one message; none is as many as 256 KiB of a client rank hold,
    at most 256, a quarter of `credit`, and `simulation.time_steps`."""
    chunk_latency: Duration = 0.05
    """Longest time that a client collects time steps for one message (seconds). A solver whose time steps take longer
    sends each at once."""
    threads: int = Field(default=1, gt=0)
    """Torch threads per rank."""
    pin_ingest: bool = False
    """Keep the ingest process off the trainer's core (needs two cores per rank)."""
    heartbeat: Duration = 1.0
    """Interval between two heartbeats of each peer (seconds). Those of more than 2,000 clients are further apart, up to
    a quarter of `heartbeat_timeout`, so that rank 0 gets at most 2,000 heartbeats a second if possible."""
    heartbeat_timeout: Duration = 20.0
    """Silence after which a peer counts as lost (seconds)."""
    progress_timeout: Duration = 600.0
    """The study fails if there is no progress for this long although something is due; the message says which part
    waits for which. No progress means that no sample is received, no batch trained and no simulation finished, or that
    a rank of the server completes no piece of its batch, validation or checkpoint. Time in which a client solves, or
    client jobs are queued or start, does not count; a warning is shown after half of it (seconds)."""

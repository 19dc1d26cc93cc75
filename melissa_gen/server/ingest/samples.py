"""Samples and their parts on their way through the assembler."""

from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from melissa_gen.protocol import wire
from melissa_gen.reservoir import NO_INPUTS, Inputs

__all__ = [
    "Counters",
    "Fate",
    "Finalized",
    "PartialSample",
    "Region",
    "Sender",
    "Target",
    "WholeSample",
]

Region = tuple[Any, ...]
"""Slices of a row that a block fills."""


@dataclass
class Counters:
    """Samples of this rank; `produced = received + lost`, `received = stored + duplicate + rejected`."""

    produced: int = 0
    received: int = 0
    lost: int = 0
    duplicate: int = 0
    rejected: int = 0
    bytes: int = 0

    def as_dict(self) -> dict[str, int]:
        """Returns the counts by name."""
        return asdict(self)


@dataclass(slots=True, unsafe_hash=True)
class Sender:
    """A client rank to which a buffer must be returned as credit, by its socket identity.

    Attributes:
        identity: Identity of its socket.
        buffer: Number of the buffer of a part.
        steps: Samples of the part that still occupy a slot. The buffer is returned with the last one.
    """

    identity: bytes
    buffer: int
    steps: int = field(default=1, compare=False)


@dataclass(frozen=True, slots=True)
class Target:
    """Destination of a part's payload.

    Attributes:
        samples: The samples that are stored.
        places: The place of each of them among the time steps of the part.
        steps: Time steps of the part.
        blocks: The blocks of the part.
        rows: For each block the rows of its field, `(slots, *shape)`, and the region of a row that it fills.
        rank: The client rank.
    """

    samples: list["PartialSample"]
    places: list[int]
    steps: int
    blocks: tuple[wire.Block, ...]
    rows: list[tuple[npt.NDArray[Any], Region]]
    rank: int

    @property
    def payload(self) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape, `(steps, *extent)`, and type of the values of each block."""
        return [
            ((self.steps, *block.extent), rows.dtype)
            for block, (rows, _) in zip(self.blocks, self.rows, strict=True)
        ]

    def direct(self, block: int) -> npt.NDArray[Any] | None:
        """Returns the memory that receives the values of a block without a copy; None if they must be copied."""
        if self.steps > 1:
            return None
        rows, region = self.rows[block]
        values: npt.NDArray[Any] = rows[(self.samples[0].slot, *region)]
        return values if values.flags.c_contiguous else None

    def write(self, block: int, values: npt.NDArray[Any]) -> None:
        """Copies the values of a block, `(steps, *extent)`, to the rows of the samples."""
        rows, region = self.rows[block]
        if self.steps == 1:
            rows[(self.samples[0].slot, *region)] = values[0]
            return
        slots = [sample.slot for sample in self.samples]
        rows[(slots, *region)] = values if len(slots) == self.steps else values[self.places]


class WholeSample(NamedTuple):
    """A complete sample with its senders, and its slot unless it is not to be stored."""

    simulation: int
    attempt: int
    step: int
    slot: int | None
    senders: list[Sender]
    refusal: str | None = None
    inputs: Inputs = NO_INPUTS


class Finalized(NamedTuple):
    """The end of an attempt, reported by all ranks of its client, as seen by this server rank.

    `fault` is the code of a failure and its field if the blocks of the ranks don't cover a field exactly, else empty.
    """

    simulation: int
    attempt: int
    steps: int
    complete: int
    fault: tuple[str, ...] = ()


class Fate(Enum):
    """The reason why a time step of a part is not stored."""

    DUPLICATE = "duplicate"
    LATE = "late"
    REPEATED = "repeated"


@dataclass(slots=True)
class PartialSample:
    """A sample of which parts are missing: what has arrived of which client rank, and the senders of it."""

    simulation: int
    attempt: int
    step: int
    slot: int
    ranks: dict[int, tuple[wire.Block, ...]] = field(default_factory=dict)
    senders: list[Sender] = field(default_factory=list)

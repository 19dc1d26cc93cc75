"""Checks that the blocks of all ranks of a client cover a field exactly."""

from collections.abc import Iterable

import numpy as np

from melissa_gen.errors import ProtocolError
from melissa_gen.protocol import wire
from melissa_gen.server.ingest.samples import Region

__all__ = ["covering", "region_of"]


def region_of(block: wire.Block, shape: tuple[int, ...], where: str) -> Region:
    """Returns the part of a field of a shape that a block fills.

    Raises:
        ProtocolError: The block is outside the shape; `where` begins the sentence.
    """
    if len(block.start) != len(shape) or not all(
        s + e <= n for s, e, n in zip(block.start, block.extent, shape, strict=True)
    ):
        message = f"{where}: block {block.start} + {block.extent} is outside the shape {shape}"
        raise ProtocolError(message)
    return _slices(block)


def covering(shape: tuple[int, ...], blocks: Iterable[wire.Block]) -> str:
    """Returns the code of the failure if the blocks of a field overlap or leave points out, else ""."""
    count = np.zeros(shape, np.uint8)
    for block in blocks:
        region = _slices(block)
        if count[region].any():
            return "blocks_overlap"
        count[region] = 1
    return "" if count.all() else "blocks_leave_gaps"


def _slices(block: wire.Block) -> Region:
    return tuple(slice(s, s + e) for s, e in zip(block.start, block.extent, strict=True))

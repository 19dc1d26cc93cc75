"""The types of the fields of binary messages, with one reader and one writer per type (`melissa_gen.protocol.wire`)."""

import functools
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from melissa_gen.errors import ProtocolError

__all__ = [
    "CODES",
    "DTYPES",
    "MOST_BYTES",
    "PARAMETER_TYPES",
    "TYPES",
    "Block",
    "Read",
    "StudyField",
    "StudyParameter",
    "Write",
    "named_values",
]

DTYPES = ("float32", "float64")
PARAMETER_TYPES = ("real", "integer")
MOST_BYTES = (1 << 32) - 1
"""Length of the longest value of the type `bytes`."""

Read = Callable[[memoryview, int], tuple[Any, int]]
"""Reads a value at an offset; returns the value and the offset after it."""
Write = Callable[[bytearray, Any], None]

_MAX_DIMENSIONS = 4


class Block(NamedTuple):
    """The block of one field that a rank sends.

    Attributes:
        field: Number of the field in the study.
        start: First index along each dimension.
        extent: Size along each dimension.
    """

    field: int
    start: tuple[int, ...]
    extent: tuple[int, ...]


class StudyField(NamedTuple):
    """A field as the study declares it: name, type and global shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class StudyParameter(NamedTuple):
    """A parameter as the study declares it: name, and type of its values."""

    name: str
    type: str = "real"

    def value(self, number: float) -> float | int:
        """Returns a value of the parameter as its type."""
        return round(number) if self.type == "integer" else float(number)


def named_values(
    parameters: Sequence[StudyParameter], values: Sequence[float]
) -> dict[str, float | int]:
    """Returns the value of each parameter, in its type, by name."""
    return {p.name: p.value(value) for p, value in zip(parameters, values, strict=True)}


def _number(code: str) -> tuple[Read, Write]:
    layout = struct.Struct("<" + code)

    def read(view: memoryview, offset: int) -> tuple[Any, int]:
        return layout.unpack_from(view, offset)[0], offset + layout.size

    def write(out: bytearray, value: Any) -> None:
        try:
            out += layout.pack(value)
        except struct.error:
            msg = f"the value {value!r} does not fit its place in a message"
            raise ProtocolError(msg) from None

    return read, write


CODES = {"u16": "H", "u32": "I", "i64": "q", "f64": "d"}
"""Number types and their format characters in the module `struct`."""
TYPES: dict[str, tuple[Read, Write]] = {kind: _number(code) for kind, code in CODES.items()}


def _read_text(view: memoryview, offset: int) -> tuple[str, int]:
    length, offset = TYPES["u16"][0](view, offset)
    raw = bytes(view[offset : offset + length])
    if len(raw) != length:
        raise IndexError
    return raw.decode(), offset + length


def _write_text(out: bytearray, value: str) -> None:
    raw = value.encode(errors="replace")[:65535].decode(errors="ignore").encode()
    TYPES["u16"][1](out, len(raw))
    out += raw


def _read_bytes(view: memoryview, offset: int) -> tuple[bytes, int]:
    length, offset = TYPES["u32"][0](view, offset)
    raw = bytes(view[offset : offset + length])
    if len(raw) != length:
        raise IndexError
    return raw, offset + length


def _write_bytes(out: bytearray, value: bytes) -> None:
    TYPES["u32"][1](out, len(value))
    out += value


def _list_of(item: tuple[Read, Write], most: int = 65535) -> tuple[Read, Write]:
    def read(view: memoryview, offset: int) -> tuple[tuple[Any, ...], int]:
        count, offset = TYPES["u16"][0](view, offset)
        # Each item takes at least one byte: an impossible count must not allocate memory.
        if count > most or count > len(view) - offset:
            raise IndexError
        values = []
        for _ in range(count):
            value, offset = item[0](view, offset)
            values.append(value)
        return tuple(values), offset

    def write(out: bytearray, values: tuple[Any, ...]) -> None:
        if len(values) > most:
            msg = f"a list of {len(values)} does not fit its place in a message; at most {most} do"
            raise ProtocolError(msg)
        TYPES["u16"][1](out, len(values))
        for value in values:
            item[1](out, value)

    return read, write


def _read_block(view: memoryview, offset: int) -> tuple[Block, int]:
    field, dimensions = struct.unpack_from("<HH", view, offset)
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise IndexError
    numbers = struct.unpack_from(f"<{2 * dimensions}I", view, offset + 4)
    block = Block(field, numbers[:dimensions], numbers[dimensions:])
    return block, offset + 4 + 8 * dimensions


def _write_block(out: bytearray, block: Block) -> None:
    size = len(block.start)
    try:
        if not 1 <= size == len(block.extent) <= _MAX_DIMENSIONS:
            raise struct.error
        out += struct.pack(f"<HH{2 * size}I", block.field, size, *block.start, *block.extent)
    except struct.error:
        msg = f"{block} does not fit its place in a message"
        raise ProtocolError(msg) from None


_SHAPE = _list_of(TYPES["u32"], _MAX_DIMENSIONS)


def _read_field(view: memoryview, offset: int) -> tuple[StudyField, int]:
    name, offset = _read_text(view, offset)
    dtype, offset = TYPES["u16"][0](view, offset)
    shape, offset = _SHAPE[0](view, offset)
    return StudyField(name, DTYPES[dtype], shape), offset


def _write_field(out: bytearray, field: StudyField) -> None:
    _write_text(out, field.name)
    TYPES["u16"][1](out, DTYPES.index(field.dtype))
    _SHAPE[1](out, field.shape)


def _read_parameter(view: memoryview, offset: int) -> tuple[StudyParameter, int]:
    name, offset = _read_text(view, offset)
    kind, offset = TYPES["u16"][0](view, offset)
    return StudyParameter(name, PARAMETER_TYPES[kind]), offset


def _write_parameter(out: bytearray, parameter: StudyParameter) -> None:
    _write_text(out, parameter.name)
    TYPES["u16"][1](out, PARAMETER_TYPES.index(parameter.type))


def _optional(listed: tuple[Read, Write]) -> tuple[Read, Write]:
    """Returns the functions for a list at the end of a message, which is missing if it is empty."""

    def read(view: memoryview, offset: int) -> tuple[Any, int]:
        if offset == len(view):
            return (), offset
        values, offset = listed[0](view, offset)
        if not values:
            raise IndexError
        return values, offset

    def write(out: bytearray, values: tuple[Any, ...]) -> None:
        if values:
            listed[1](out, values)

    return read, write


TYPES["str"] = _read_text, _write_text
TYPES["bytes"] = _read_bytes, _write_bytes
TYPES["block"] = _read_block, _write_block
TYPES["[str]"] = _list_of(TYPES["str"])
TYPES["[u16]"] = _list_of(TYPES["u16"])
TYPES["[f64]"] = _list_of(TYPES["f64"])
TYPES["[f64]?"] = _optional(TYPES["[f64]"])
_BLOCKS = _list_of((_read_block, _write_block), 16)
_MOST_BLOCK_BYTES = 1024
"""More bytes than 16 blocks of 4 dimensions have."""
REMEMBERED_BLOCKS = 16_384
"""Number of different blocks that are kept. Each client rank has its own and sends it with each sample; with fewer
entries than ranks, every lookup would fail."""


@functools.lru_cache(maxsize=REMEMBERED_BLOCKS)
def _known_blocks(raw: bytes) -> tuple[Any, int]:
    return _BLOCKS[0](memoryview(raw), 0)


@functools.lru_cache(maxsize=REMEMBERED_BLOCKS)
def _bytes_of_blocks(blocks: tuple[Block, ...]) -> bytes:
    out = bytearray()
    _BLOCKS[1](out, blocks)
    return bytes(out)


def _read_blocks(view: memoryview, offset: int) -> tuple[Any, int]:
    """Reads blocks through a cache, because a rank sends the same blocks at every time step."""
    if len(view) - offset > _MOST_BLOCK_BYTES:
        return _BLOCKS[0](view, offset)
    blocks, size = _known_blocks(bytes(view[offset:]))
    return blocks, offset + size


def _write_blocks(out: bytearray, blocks: tuple[Block, ...]) -> None:
    out += _bytes_of_blocks(blocks)


TYPES["[block]"] = _read_blocks, _write_blocks
TYPES["[parameter]"] = _list_of((_read_parameter, _write_parameter))
TYPES["[field]"] = _list_of((_read_field, _write_field), 16)

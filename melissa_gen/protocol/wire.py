"""The binary messages between simulation clients and the training server, version 6.

All integers are little-endian and unaligned. Every message starts with the same 48 bytes:

====== ==== ======================================================================================
offset type meaning
====== ==== ======================================================================================
0      4s   magic, the bytes ``MGEN``
4      u16  protocol version
6      u16  kind of message (the numbers below)
8      u32  epoch: number of the server process that the message is for or from
12     u32  rank of the sender in its MPI job
16     16s  token: the secret of the run, from the contact file
32     u64  number of the message; 0 for one outside the order (`melissa_gen.protocol.session`)
40     u64  number of the last message that the sender has received in order
====== ==== ======================================================================================

The body follows, with the fields in the order of each message class below: ``u16 u32 i64 f64`` are numbers, ``str`` is
a u16 length and UTF-8 bytes, ``bytes`` a u32 length and that many bytes, ``[T]`` is a u16 count and that many values of
type T, and ``[T]?`` is nothing at the end of a message, or such a list that is not empty.

A `Part` is a header frame followed by one frame per field that it lists: the raw values of the sender's block at
`count` consecutive time steps, ``(count, *extent)`` in C order, in the type that the study declares. All time steps of
a simulation belong to the server rank ``owner(simulation, ranks)``, and its parts are sent directly to the data socket
of that rank. A sender may have `Welcome.credit` buffers in use for each server rank; each holds `Welcome.chunk_steps`
time steps. A part names the buffer that holds its time steps, and the place of the first one there. `Credit` returns
the buffer once for each part, when its samples are in the reservoir or were counted as duplicates. A buffer whose
places were all used is free again when it has been returned for each of its parts.

Each client rank sends its block of every input of the study as an `Input` to the same server rank, once per simulation
and before its first part of it.

If a server rank runs on the machine of the client (`Contact.machines`), the client rank may offer its buffers in shared
memory with `Share`, before its first part to that server rank (`melissa_gen.protocol.shared_memory`). The answer is
either `Credit` with all buffers, and every part is then a header alone, or `Refused`, and every part carries its
payload.
"""

import hmac
import struct
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, TypeVar, overload

import numpy as np
import numpy.typing as npt

from melissa_gen.errors import ProtocolError
from melissa_gen.protocol.wire_types import (
    CODES,
    DTYPES,
    PARAMETER_TYPES,
    TYPES,
    Block,
    Read,
    StudyField,
    StudyParameter,
    Write,
    named_values,
)

__all__ = [
    "DTYPES",
    "MAGIC",
    "MESSAGES",
    "PARAMETER_TYPES",
    "VERSION",
    "Alive",
    "Block",
    "Credit",
    "Done",
    "Failed",
    "Finalize",
    "Header",
    "Hello",
    "Input",
    "Message",
    "Next",
    "Part",
    "Ping",
    "Pong",
    "Refused",
    "Share",
    "Solve",
    "Stop",
    "StudyField",
    "StudyParameter",
    "Welcome",
    "check_peer",
    "decode",
    "decode_body",
    "decode_header",
    "encode",
    "named_values",
    "owner",
]

MAGIC = b"MGEN"
VERSION = 6
ANY = -1
"""`Next.simulation` of a client that solves any simulation."""

Simulations = TypeVar("Simulations", int, npt.NDArray[np.int64])

_HEADER = struct.Struct("<4sHHII16sQQ")
_START = struct.Struct("<4sH")


class Header(NamedTuple):
    """The first 48 bytes of every message."""

    kind: int
    epoch: int
    rank: int
    token: bytes
    number: int = 0
    received: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """Base of all messages: `LAYOUT` gives the body's field types in order."""

    KIND: ClassVar[int]
    LAYOUT: ClassVar[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """First message of client rank 0: its job, host, process, and number of MPI ranks (control socket)."""

    KIND, LAYOUT = 1, ("str", "str", "u32", "u32")
    job: str
    host: str
    pid: int
    ranks: int


@dataclass(frozen=True, slots=True)
class Welcome(Message):
    """Answer of the server to `Hello`: what the study expects of a client."""

    KIND, LAYOUT = (
        2,
        ("u16", "u16", "u16", "u32", "f64", "f64", "f64", "[parameter]", "[field]", "[field]"),
    )
    credit: int
    chunk_steps: int
    server_ranks: int
    time_steps: int
    chunk_latency: float
    heartbeat: float
    heartbeat_timeout: float
    parameters: tuple[StudyParameter, ...]
    fields: tuple[StudyField, ...]
    inputs: tuple[StudyField, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused(Message):
    """The server refuses a message or a client, with the reason."""

    KIND, LAYOUT = 3, ("str",)
    reason: str


@dataclass(frozen=True, slots=True)
class Next(Message):
    """Client rank 0 requests the simulation with this number, or any (-1)."""

    KIND, LAYOUT = 4, ("i64",)
    simulation: int


@dataclass(frozen=True, slots=True)
class Solve(Message):
    """Answer to `Next`: a simulation to solve, with parameters in the order of `Welcome.parameters`."""

    KIND, LAYOUT = 5, ("u32", "u32", "[f64]")
    simulation: int
    attempt: int
    parameters: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Done(Message):
    """Answer to `Next` if no simulation is left."""

    KIND, LAYOUT = 6, ()


@dataclass(frozen=True, slots=True)
class Finalize(Message):
    """Sent by each client rank to the owner after the last part of a simulation, of `steps` time steps."""

    KIND, LAYOUT = 7, ("u32", "u32", "u32", "u32")
    simulation: int
    attempt: int
    steps: int
    ranks: int


@dataclass(frozen=True, slots=True)
class Failed(Message):
    """A client rank gives up a simulation, or its declarations are wrong (control socket).

    Attributes:
        job: Name of the job of the client.
        simulation: Number of the simulation; -1 before the first one.
        attempt: Number of the attempt.
        step: The time step that could not be sent.
        code: Code of the failure (`melissa_gen.protocol.failures`).
        values: The values of the failure as the text of a JSON object.
    """

    KIND, LAYOUT = 8, ("str", "i64", "u32", "u32", "str", "str")
    job: str
    simulation: int
    attempt: int
    step: int
    code: str
    values: str


@dataclass(frozen=True, slots=True)
class Part(Message):
    """The blocks that one client rank computes, at consecutive time steps; their values follow, one frame per block.

    Attributes:
        simulation: Number of the simulation.
        attempt: Number of the attempt.
        step: First time step.
        count: Number of time steps.
        ranks: Number of client ranks.
        buffer: Number of the buffer that holds the values.
        place: Place of the first time step in the buffer.
        blocks: Place of the values in each field.
    """

    KIND, LAYOUT = 9, ("u32", "u32", "u32", "u16", "u32", "u16", "u16", "[block]")
    simulation: int
    attempt: int
    step: int
    count: int
    ranks: int
    buffer: int
    place: int
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Credit(Message):
    """The server returns buffers to a client rank, each as often as parts of it were sent (data socket)."""

    KIND, LAYOUT = 10, ("[u16]",)
    buffers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Alive(Message):
    """Heartbeat of client rank 0, echoed by the server: its state, and the seconds that it has waited so far.

    `spent` is `(elapsed, solving, copying, sending)` in seconds; a client that does not measure them leaves it out.
    """

    KIND, LAYOUT = 11, ("str", "u16", "u32", "u32", "f64", "f64", "[f64]?")
    job: str
    state: int
    simulation: int
    step: int
    credit_seconds: float
    next_seconds: float
    spent: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Stop(Message):
    """The server asks a client to end (answer to `Alive` or `Next`)."""

    KIND, LAYOUT = 12, ("str",)
    reason: str


@dataclass(frozen=True, slots=True)
class Share(Message):
    """A client rank offers its buffers in shared memory: file `descriptor` of process `pid` (data socket)."""

    KIND, LAYOUT = 13, ("u32", "u32", "i64", "u16")
    pid: int
    descriptor: int
    nonce: int
    buffers: int


@dataclass(frozen=True, slots=True)
class Ping(Message):
    """A client that waits asks what has arrived; `sent` is the number of its last message (control, data sockets)."""

    KIND, LAYOUT = 14, ("i64",)
    sent: int


@dataclass(frozen=True, slots=True)
class Pong(Message):
    """Answer to `Ping` with the same number; its header confirms what the server has received."""

    KIND, LAYOUT = 15, ("i64",)
    sent: int


@dataclass(frozen=True, slots=True)
class Input(Message):
    """The block of one input of a simulation that one client rank has (data socket).

    Attributes:
        simulation: Number of the simulation.
        attempt: Number of the attempt.
        ranks: Number of client ranks.
        block: Place of the values; its field is a number in `Welcome.inputs`.
        values: The values in C order, in the type that the study declares.
    """

    KIND, LAYOUT = 16, ("u32", "u32", "u32", "block", "bytes")
    simulation: int
    attempt: int
    ranks: int
    block: Block
    values: bytes


MESSAGES: tuple[type[Message], ...] = (
    *(Hello, Welcome, Refused, Next, Solve, Done),
    *(Finalize, Failed, Part, Credit, Alive, Stop, Share, Ping, Pong, Input),
)
"""All messages, in the order of their kinds."""

SOLVING, WAITING_FOR_CREDIT, WAITING_FOR_PARAMETERS = range(3)
"""Values of `Alive.state`."""


def owner(simulation: Simulations, ranks: int) -> Simulations:
    """Returns the server rank that all time steps of a simulation belong to; of several simulations, an array."""
    return simulation % ranks


def encode(
    message: Message, epoch: int, rank: int, token: bytes, number: int = 0, received: int = 0
) -> bytes:
    """Encodes a message, including its header.

    Args:
        message: The message.
        epoch: Number of the server process.
        rank: Rank of the sender.
        token: The secret of the run.
        number: Number of the message; 0 outside the order.
        received: Number of the last message that the sender has received.

    Raises:
        ProtocolError: A value is outside the range of its type.
    """
    out = bytearray(
        _HEADER.pack(MAGIC, VERSION, message.KIND, epoch, rank, token, number, received)
    )
    plan = _PLANS[type(message)]
    numbers = [getattr(message, name) for name in plan.numbers]
    try:
        out += plan.head.pack(*numbers)
    except struct.error:
        # Finds the value that does not fit, and raises an error that names it.
        for value, kind in zip(numbers, message.LAYOUT, strict=False):
            TYPES[kind][1](bytearray(), value)
    for (_, write), name in plan.rest:
        write(out, getattr(message, name))
    return bytes(out)


def decode_header(data: Any) -> Header:
    """Decodes the first 48 bytes of a message.

    Raises:
        ProtocolError: The data are too short, not of this protocol, or of another version.
    """
    # The beginning comes first, so that a peer of another version is refused as such.
    if len(data) >= _START.size:
        magic, version = _START.unpack_from(data)
        if magic != MAGIC:
            msg = "a message that does not start with MGEN: not a melissa_gen peer"
            raise ProtocolError(msg)
        if version != VERSION:
            msg = f"a peer of protocol version {version}; version {VERSION} is spoken here"
            raise ProtocolError(msg)
    if len(data) < _HEADER.size:
        msg = f"a message of {len(data)} bytes is shorter than the header's {_HEADER.size}"
        raise ProtocolError(msg)
    return Header(*_HEADER.unpack_from(data)[2:])


def check_peer(header: Header, epoch: int, token: bytes) -> None:
    """Checks that a message belongs to this run and this server process.

    Raises:
        ProtocolError: It belongs to another run or another server process.
    """
    if header.epoch != epoch:
        age = "stale" if header.epoch < epoch else "newer"
        msg = f"a {age} peer of epoch {header.epoch}; this is epoch {epoch}"
        raise ProtocolError(msg)
    if not hmac.compare_digest(header.token, token):
        msg = "a peer with another run's token"
        raise ProtocolError(msg)


A = TypeVar("A", bound=Message)
B = TypeVar("B", bound=Message)
C = TypeVar("C", bound=Message)
D = TypeVar("D", bound=Message)


@overload
def decode(data: Any, expected: type[A], /) -> A: ...
@overload
def decode(data: Any, first: type[A], second: type[B], /) -> A | B: ...
@overload
def decode(data: Any, first: type[A], second: type[B], third: type[C], /) -> A | B | C: ...
@overload
def decode(
    data: Any, first: type[A], second: type[B], third: type[C], fourth: type[D], /
) -> A | B | C | D: ...


def decode(data: Any, *expected: type[Any]) -> Any:
    """Decodes a message of one of the expected classes.

    Args:
        data: The frame (bytes-like), including the header.
        *expected: The classes that are allowed.

    Raises:
        ProtocolError: The frame is not one that `encode` returns for an expected class.
    """
    return decode_body(decode_header(data), data, *expected)


def decode_body(header: Header, data: Any, *expected: type[Any]) -> Any:
    """Decodes the rest of a message whose header has been decoded.

    Args:
        header: The header.
        data: The frame (bytes-like), including the header.
        *expected: The classes that are allowed.

    Raises:
        ProtocolError: The frame is not one that `encode` returns for an expected class.
    """
    for cls in expected:
        if header.kind == cls.KIND:
            break
    else:
        legal = ", ".join(c.__name__ for c in expected)
        msg = f"a message of kind {header.kind}, where {legal} is legal"
        raise ProtocolError(msg)
    view, plan = memoryview(data), _PLANS[cls]
    try:
        values = list(plan.head.unpack_from(view, _HEADER.size))
        offset = _HEADER.size + plan.head.size
        for (read, _), _name in plan.rest:
            value, offset = read(view, offset)
            values.append(value)
    except (struct.error, UnicodeDecodeError, IndexError):
        msg = f"a damaged {cls.__name__} message of {len(view)} bytes"
        raise ProtocolError(msg) from None
    if offset != len(view):
        msg = f"a {cls.__name__} message with {len(view) - offset} bytes too many"
        raise ProtocolError(msg)
    return cls(*values)


class _Plan(NamedTuple):
    """Layout of a body: the numbers at its start, which are read together, and the remaining fields."""

    numbers: tuple[str, ...]
    head: struct.Struct
    rest: list[tuple[tuple[Read, Write], str]]


def _planned(cls: type[Message]) -> _Plan:
    names = [field.name for field in fields(cls)]
    count = next((n for n, kind in enumerate(cls.LAYOUT) if kind not in CODES), len(names))
    codes = "".join(CODES[kind] for kind in cls.LAYOUT[:count])
    rest = [
        (TYPES[kind], name) for kind, name in zip(cls.LAYOUT[count:], names[count:], strict=True)
    ]
    return _Plan(tuple(names[:count]), struct.Struct("<" + codes), rest)


_PLANS = {cls: _planned(cls) for cls in MESSAGES}

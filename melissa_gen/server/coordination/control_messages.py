"""Checks the JSON messages that the control process receives, key by key.

A peer with the token of the run may still send anything. What passes here has the types and ranges that the control
thread expects, so that no message ends it.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

from melissa_gen.errors import ProtocolError
from melissa_gen.server.stopwatch import PARTS

__all__ = [
    "ControlMessage",
    "JobOver",
    "LauncherAlive",
    "LauncherGreets",
    "LauncherStops",
    "Leave",
    "LinkPing",
    "RankGreets",
    "Report",
    "read_control_message",
]

Count = Annotated[int, Field(ge=0, lt=2**63)]
Text = Annotated[str, Field(max_length=1 << 20)]
_TilingFault = tuple[Literal["blocks_overlap", "blocks_leave_gaps"], Text]


def _totals_are_numbers(training: dict[str, Any]) -> dict[str, Any]:
    for name in ("batches", "samples_drawn", *(f"{part}_seconds" for part in PARTS)):
        if training.get(name, 0) is None:
            msg = f"'{name}' must be a number"
            raise ValueError(msg)
    return training


_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Figures = Annotated[dict[Text, Count | float | None], AfterValidator(_totals_are_numbers)]


class LinkPing(BaseModel):
    """Asks what has arrived."""

    type: Literal["ping"]
    sent: Count


class RankGreets(BaseModel):
    """A server rank has started."""

    type: Literal["rank_hello"]
    rank: Count


class SampleCounters(BaseModel):
    """Samples that a rank has received."""

    produced: Count
    received: Count
    lost: Count
    duplicate: Count
    rejected: Count
    bytes: Count


class SinkCounters(BaseModel):
    """Samples that the sink of a rank has taken."""

    stored: Count
    trained: Count
    recorded: Count | None = None
    withdrawn: dict[Text, Count]
    samples_drawn: Count
    seen: Count
    unseen: Count
    capacity: Count
    watermark: Count


class Report(BaseModel):
    """The periodic report of a server rank."""

    type: Literal["rank_report"]
    rank: Count
    last: bool
    counters: SampleCounters
    reservoir: SinkCounters
    pending: Count
    training: _Figures
    ingest: dict[Text, _Seconds] = {}
    activity: Text
    turns: Count = 0
    pieces: Count = 0
    finalized: list[
        tuple[Count, Count, Count, Count]
        | tuple[Count, Count, Count, Count, _TilingFault | tuple[()]]
    ]
    refused: list[tuple[Text, Text, Count]]
    first_pass: list[tuple[Count, float, float]]
    saved: tuple[Count, bool, Text] = (0, True, "")
    warnings: list[Text] = []


class LauncherGreets(BaseModel):
    """The launcher has connected."""

    type: Literal["launcher_hello"]


class JobOver(BaseModel):
    """The processes of a job have ended."""

    type: Literal["job_ended"]
    job: Text
    exit_code: int
    simulation: Count | None = None
    ending: Text = ""


class LauncherAlive(BaseModel):
    """The launcher is alive."""

    type: Literal["alive"]
    queued: Count = 0
    starting: Count = 0


class Leave(BaseModel):
    """Another server continues the run."""

    type: Literal["leave"]
    reason: Text = "another server takes over"


class LauncherStops(BaseModel):
    """The run stops."""

    type: Literal["stop"]
    reason: Text = "stopped by the launcher"


ControlMessage = (
    LinkPing
    | RankGreets
    | Report
    | LauncherGreets
    | JobOver
    | LauncherAlive
    | Leave
    | LauncherStops
)
_READER: TypeAdapter[ControlMessage] = TypeAdapter(
    Annotated[ControlMessage, Field(discriminator="type")]
)


def read_control_message(message: dict[str, Any], ranks: int) -> ControlMessage:
    """Checks a message.

    Args:
        message: The JSON object, without the numbers of the session.
        ranks: Number of server ranks.

    Raises:
        ProtocolError: A key is missing or has a value of another type or range.
    """
    try:
        read = _READER.validate_python(message)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
        msg = f"a control message with a wrong '{where}': {first['msg']}"
        raise ProtocolError(msg) from None
    if isinstance(read, RankGreets | Report) and read.rank >= ranks:
        msg = f"a control message of rank {read.rank}; the server has {ranks} ranks"
        raise ProtocolError(msg)
    return read

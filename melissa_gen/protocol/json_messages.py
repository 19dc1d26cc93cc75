"""JSON messages between launcher, server rank 0 and the other server ranks.

Three frames: ``J``, the run's token, and a JSON object with a key `type`. The keys `number` and `received` are those of
the header of a binary message (`melissa_gen.protocol.session`).
"""

import hmac
import json
from typing import Any

from melissa_gen.errors import ProtocolError

__all__ = ["EXIT_HANDOVER", "MARK", "numbers", "pack", "unpack"]

MARK = b"J"
EXIT_HANDOVER = 75
"""Exit status of a server that has saved a checkpoint, so that the next server process continues the run."""


def pack(token: bytes, message: dict[str, Any]) -> list[bytes]:
    """Encodes a message as three frames: `MARK`, the token, and the JSON text."""
    return [MARK, token, json.dumps(message).encode()]


def unpack(token: bytes, frames: list[bytes]) -> dict[str, Any]:
    """Decodes the frames of a message.

    Args:
        token: The token of this run.
        frames: The frames.

    Raises:
        ProtocolError: There are not three frames, the token is that of another run, or the text is not a JSON object
            with a key `type`.
    """
    if len(frames) != 3 or frames[0] != MARK:
        msg = "a control message that is not of three frames"
        raise ProtocolError(msg)
    if not hmac.compare_digest(frames[1], token):
        msg = "a control message with another run's token"
        raise ProtocolError(msg)
    try:
        message = json.loads(frames[2])
    except (ValueError, RecursionError):
        msg = "a control message that is not JSON"
        raise ProtocolError(msg) from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        msg = "a control message without a type"
        raise ProtocolError(msg)
    return message


def numbers(message: dict[str, Any]) -> tuple[int, int]:
    """Removes the numbers of a message and returns them: its own, and what it confirms; 0 for one that is missing.

    Raises:
        ProtocolError: They are not numbers.
    """
    number, received = message.pop("number", 0), message.pop("received", 0)
    if not (isinstance(number, int) and isinstance(received, int)):
        msg = "a control message whose number is none"
        raise ProtocolError(msg)
    return number, received

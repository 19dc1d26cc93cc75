"""The reference of the binary messages, from their classes."""

import inspect
import re
from dataclasses import fields

from generators.tables import table
from melissa_gen.protocol.wire import MESSAGES, VERSION

__all__ = ["PATH", "pages"]

PATH = "reference/messages.md"


def pages() -> dict[str, str | bytes]:
    """Returns the page."""
    text = [
        "# Messages\n\nThis page is generated from `melissa_gen/protocol/wire.py`. It lists the binary messages "
        f"between simulation clients and the server, version {VERSION}. "
        "[Protocol](../explanation/protocol.md) explains how they are used.\n",
        "Every message starts with a header of 48 bytes. All integers are little-endian and unaligned.\n",
        table(
            ("offset", "type", "meaning"),
            (
                ("0", "4 bytes", "the bytes `MGEN`"),
                ("4", "u16", "version of the protocol"),
                ("6", "u16", "kind of message"),
                ("8", "u32", "epoch: number of earlier servers of the run"),
                ("12", "u32", "rank of the sender in its MPI world"),
                ("16", "16 bytes", "token: the run's secret, from the contact file"),
                ("32", "u64", "number of the message; 0 for one outside the order"),
                ("40", "u64", "number of the last message that the sender has received in order"),
            ),
        ),
        "The body follows, with the fields of the message in order. `str` is a u16 length and UTF-8 bytes. `[T]` is a "
        "u16 count and that many T. `parameter` is `str` and a u16, 0 for real numbers and 1 for integers. `field` is "
        "`str`, a u16, 0 for float32 and 1 for float64, and the shape `[u32]`. `block` is the number of the field and "
        "that of its dimensions (u16), then start and extent along each dimension (u32).\n",
    ]
    for message in MESSAGES:
        summary, _, attributes = (inspect.getdoc(message) or "").partition("\n\nAttributes:\n")
        meanings = dict(re.findall(r"^ {4}(\w+): (.*)$", attributes, flags=re.M))
        rows = [
            (f"`{field.name}`", f"`{kind}`", *([meanings[field.name]] if meanings else ()))
            for field, kind in zip(fields(message), message.LAYOUT, strict=True)
        ]
        text.append(f"## `{message.__name__}` ({message.KIND})\n\n{summary}\n")
        if rows:
            text.append(table(("field", "type", "meaning")[: len(rows[0])], rows))
    return {PATH: "\n".join(text)}

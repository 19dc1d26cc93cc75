"""Readers turn the output files of one simulation into fields, one complete time step after the other.

`base` has the interface, `selection` chooses the reader that a study names, and every other module holds one kind of
reader. A reader is asked for one time step until that step is available. A file counts as complete when a later file
exists and its size no longer changes, or when the command has ended. Readers import `melissa_gen.study` and
`melissa_gen.errors`, and nothing else of melissa_gen.
"""

from melissa_gen.bridge.readers.base import COORDINATES, OutputError, Reader
from melissa_gen.bridge.readers.selection import (
    INPUT_KEY,
    KEY,
    check_reader,
    open_input_reader,
    open_reader,
)

__all__ = [
    "COORDINATES",
    "INPUT_KEY",
    "KEY",
    "OutputError",
    "Reader",
    "check_reader",
    "open_input_reader",
    "open_reader",
]

"""Every error that melissa_gen raises on purpose; one root, so that one `except` catches all."""

import difflib
from collections.abc import Iterable

__all__ = [
    "ClientError",
    "DataError",
    "MelissaGenError",
    "ProtocolError",
    "RunError",
    "ServerLost",
    "SimulationError",
    "StudyError",
    "nearest",
]


class MelissaGenError(Exception):
    """Root of all errors; its text is one sentence that a user can act on."""


class StudyError(MelissaGenError):
    """The study file, or a value set over it, is not legal."""


class RunError(MelissaGenError):
    """A run can't start or go on: folder in use, server died, disk full."""


class DataError(MelissaGenError):
    """A data file or checkpoint can't be read or doesn't fit the study."""


class ProtocolError(MelissaGenError):
    """Bytes on the wire that the protocol does not allow."""


class ClientError(MelissaGenError):
    """The client interface was used wrongly, or there is no server to talk to."""


class SimulationError(ClientError):
    """One simulation sent something that can't be trained on: a wrong shape, NaN, a missing step."""


class ServerLost(ClientError):
    """The training server stopped or no longer answers."""


def nearest(word: str, legal: Iterable[str]) -> str:
    """Returns a hint " (did you mean 'x'?)" for the legal spelling nearest to `word`, or ""."""
    found = difflib.get_close_matches(word, list(legal), n=1, cutoff=0.5)
    return f" (did you mean '{found[0]}'?)" if found else ""

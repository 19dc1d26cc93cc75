"""Exceptions of melissa_gen. All derive from `MelissaGenError`."""

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
    """Base class of all exceptions. The message is one sentence that tells the user what to do."""


class StudyError(MelissaGenError):
    """The study file or an override is invalid."""


class RunError(MelissaGenError):
    """A run can't start or continue, e.g. run directory in use, server failure, disk full."""


class DataError(MelissaGenError):
    """A data file or checkpoint can't be read or does not match the study."""


class ProtocolError(MelissaGenError):
    """A received message violates the wire protocol."""


class ClientError(MelissaGenError):
    """The client interface was used incorrectly, or the server can't be reached."""


class SimulationError(ClientError):
    """A simulation sent invalid data, e.g. a wrong shape, NaN, or not all time steps."""


class ServerLost(ClientError):
    """The training server stopped or does not respond."""


def nearest(word: str, legal: Iterable[str]) -> str:
    """Returns a hint " (did you mean 'x'?)" for the legal spelling nearest to `word`, or ""."""
    found = difflib.get_close_matches(word, list(legal), n=1, cutoff=0.5)
    return f" (did you mean '{found[0]}'?)" if found else ""

"""Exceptions of melissa_gen. All derive from `MelissaGenError`."""

import difflib
from collections.abc import Iterable

_SHORTEST_BEGINNING = 4

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
    """Returns a hint " (did you mean 'x'?)" for the legal spelling nearest to `word`, or "".

    A word of at least four letters may also be the beginning of a legal one, such as `difusion`.
    """
    best, best_score = "", 0.5
    for one in legal:
        score = difflib.SequenceMatcher(None, word, one).ratio()
        if len(word) >= _SHORTEST_BEGINNING:
            beginning = difflib.SequenceMatcher(None, word, one[: len(word) + 1]).ratio()
            score = max(score, 0.9 * beginning)
        if score > best_score:
            best, best_score = one, score
    return f" (did you mean '{best}'?)" if best else ""

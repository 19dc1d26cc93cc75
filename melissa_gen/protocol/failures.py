"""Failures of simulations and clients as a code with named values, and the sentence that follows from them.

A client sends the code and the values (`melissa_gen.protocol.wire.Failed`). The server writes them to the events and to
`simulations.jsonl` together with the sentence, and `melissa-gen check` chooses a remedy by the code. The C library has
the same templates (`native/src/failure.c`); `tests/unit/protocol/vectors.json` tests both.

Most templates begin with `{where}`: "simulation 3, time step 5: " if the values contain `simulation` and `step`, else
nothing. `{hint}` is the legal name that is closest to a misspelled one. If the values contain `details`, they follow
the sentence after a semicolon.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from melissa_gen.errors import nearest
from melissa_gen.exit_status import signal_with_cause, status_with_cause

__all__ = ["SENTENCES", "Failure", "failure_in"]

Value = str | int | float | Sequence[str | int | float]

OTHER = "other"
_LONGEST_TEXT = 8000
"""Characters of a text value. A failure must fit into one message."""

SENTENCES: dict[str, str] = {
    # Declarations.
    "unknown_field": "field '{field}'{hint} is not in the study; it declares {legal}",
    "wrong_shape": "{where}field '{field}' has the global shape {found}; the study says {expected}",
    "block_dimensions": "field '{field}': start {start} and shape {shape} have different lengths",
    "block_outside": (
        "field '{field}': the block start {start}, extent {extent} is not inside the shape {shape}"
    ),
    "wrong_dtype": "field '{field}': the type {dtype} is not float32 or float64",
    "late_declaration": (
        "field '{field}' is declared again after the first time step; declare it once, before the loop"
    ),
    "large_input": (
        "the input '{field}': the block of one rank has {bytes} bytes, and at most 4294967295 can be sent; divide it "
        "among more MPI ranks (simulation.processes), or declare it in simulation.fields"
    ),
    "undeclared_fields": (
        "the fields {fields} of the study are not declared; declare every field before the loop"
    ),
    "wrong_ranks": (
        "job {job} has {ranks} MPI ranks; the study's simulation.processes is {processes} "
        "(was `Client(MPI.COMM_WORLD)` forgotten, or was it started by another MPI's mpirun?)"
    ),
    # One time step.
    "missing_field": "{where}the field '{field}' is missing",
    "repeated_field": "{where}the field '{missing}' is missing ('{field}' was sent twice)",
    "undeclared_field": "{where}unknown field '{field}'{hint}; declared: {legal}",
    "wrong_extent": "{where}field '{field}' has shape {found}; this rank declared the extent {extent}",
    "wrong_count": "{where}field '{field}' has {count} values; this rank declared the extent {extent}",
    "masked": (
        "{where}field '{field}' is a masked array with {count} masked values; send the values that the solver "
        "means there, for example field.filled(0.0)"
    ),
    "has_unit": (
        "{where}field '{field}' carries the unit {unit}; send plain numbers in the unit that the study means, "
        "for example field.to('...').value or .magnitude"
    ),
    "no_array": "{where}field '{field}' of type {type} can't be read as an array: {text}",
    "not_real": "{where}field '{field}' is of type {dtype}; real numbers are expected",
    "not_finite": (
        "{where}field '{field}' has {count} values that are NaN, infinite or too large for {dtype}, "
        "the first at {place}"
    ),
    "too_many_steps": "{where}the study has {time_steps} time steps; this one is too many",
    # The inputs of a simulation.
    "no_inputs": (
        "{where}'{field}' can't be sent as an input, because the study has no inputs; declare it in simulation.inputs "
        "of the study, or send it at each time step"
    ),
    "missing_input": (
        "{where}the input '{field}' of the simulation is missing; send it before the first time step"
    ),
    "repeated_input": "{where}the input '{field}' was sent already; send it once per simulation",
    "late_input": (
        "{where}the input '{field}' was sent after a time step; send it before the first one"
    ),
    "inputs_differ": (
        "the input '{field}' differs from the one that an earlier attempt at the simulation has sent; compute it from "
        "the parameters alone"
    ),
    # A whole simulation.
    "too_few_steps": "simulation {simulation} ended after {steps} of {time_steps} time steps",
    "blocks_overlap": (
        "field '{field}': the blocks of the client's ranks overlap; each point belongs to one rank: send the blocks "
        "without halo or ghost cells"
    ),
    "blocks_leave_gaps": (
        "field '{field}': the blocks of the client's ranks leave points out; declare blocks (start and extent) that "
        "together cover the field's shape"
    ),
    "lost_steps": "only {received} of {time_steps} time steps arrived completely",
    "unknown_parameter": "the study has no parameter '{parameter}'{hint}; it has {legal}",
    "given_up": "{text}",
    "exception": "{type}: {text}",
    # The process of a client, as the server sees it.
    "process_ended": "its process ended with exit status {exit_status}",
    "process_ended_early": (
        "its process ended with exit status {exit_status} before the simulation was complete"
    ),
    "silent": "it has been silent for {seconds} s",
    "no_progress": "it made no progress in time step {step} of simulation {simulation} for {seconds} s",
    # The command that a bridge runs.
    "command_ended": "{where}the command ended with exit status {exit_status}",
    "command_killed": "{where}the command was ended by signal {signal}",
    "no_output": "{where}there was no new time step for {seconds} s",
    "unreadable_output": "{where}{text}",
    # Anything else.
    OTHER: "{where}{text}",
}
"""Template of the sentence of each code."""


@dataclass(frozen=True)
class Failure:
    """Why a simulation, or a client before its first simulation, has failed.

    Attributes:
        code: A key of `SENTENCES`.
        values: The named values of the code: numbers, texts, and lists of either.
        sentence: The reason in words.

    Example:
        >>> str(Failure.of("too_few_steps", simulation=0, steps=2, time_steps=3))
        'simulation 0 ended after 2 of 3 time steps'
    """

    code: str
    values: Mapping[str, Value]
    sentence: str

    def __str__(self) -> str:
        return self.sentence

    @classmethod
    def of(cls, code: str, **values: Any) -> Self:
        """Returns the failure with this code and these values.

        Raises:
            KeyError: The code does not exist, or its template needs a value that is not given.
        """
        cleaned = {name: _cleaned(value) for name, value in values.items()}
        return cls(code, cleaned, _sentence(code, cleaned))

    @classmethod
    def received(cls, code: str, values: str) -> Self:
        """Reads what a client has sent.

        Args:
            code: The code.
            values: The values as the text of a JSON object.

        Returns:
            The failure. If the code is unknown or the values do not fit it, the code is `other` and the sentence
            contains the text that was received.
        """
        try:
            return cls.of(code, **_object(values))
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
            return cls.of(OTHER, text=f"{code}: {values}")

    @classmethod
    def recorded(cls, record: Mapping[str, Any]) -> Self:
        """Reads the keys `code`, `values` and `reason` of an event."""
        values = record.get("values")
        return cls(
            str(record.get("code") or OTHER),
            values if isinstance(values, dict) else {},
            str(record.get("reason", "")),
        )

    @property
    def values_json(self) -> str:
        """The values as the text of a JSON object."""
        return json.dumps(self.values)

    def record(self) -> dict[str, Any]:
        """Returns the keys `reason`, `code` and `values` for an event."""
        return {"reason": self.sentence, "code": self.code, "values": dict(self.values)}

    def with_details(self, details: str) -> Self:
        """Returns the same failure with details that follow its sentence, if they are not empty."""
        if not details:
            return self
        return type(self)(
            self.code, {**self.values, "details": details}, f"{self.sentence}; {details}"
        )


def failure_in(error: BaseException) -> Failure:
    """Returns the failure that an error was raised with, or one with the code `exception`."""
    if error.args and isinstance(error.args[0], Failure):
        return error.args[0]
    return Failure.of("exception", type=type(error).__name__, text=str(error))


def _object(text: str) -> dict[str, Any]:
    values = json.loads(text)
    if not isinstance(values, dict):
        raise TypeError
    return values


def _cleaned(value: Any) -> Value:
    """Returns a value as a number, a valid UTF-8 text that is not too long, or a list of these."""
    if isinstance(value, list | tuple):
        items = [_cleaned(item) for item in value]
        plain = [item for item in items if isinstance(item, str | int | float)]
        if len(plain) < len(items):
            raise TypeError
        return plain
    if isinstance(value, float) and not value.is_integer():
        return value if math.isfinite(value) else str(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int(value)
    if not isinstance(value, str):
        raise TypeError
    return value[:_LONGEST_TEXT].encode(errors="replace").decode()


def _sentence(code: str, values: Mapping[str, Value]) -> str:
    shown = {name: _shown(name, value) for name, value in values.items()}
    where = ""
    if "simulation" in values and "step" in values:
        where = f"simulation {shown['simulation']}, time step {shown['step']}: "
    legal = values.get("legal")
    hint = ""
    if isinstance(legal, list):
        word = shown.get("field", shown.get("parameter", ""))
        hint = nearest(word, [str(name) for name in legal])
    text = SENTENCES[code].format_map({**shown, "where": where, "hint": hint})
    return f"{text}; {shown['details']}" if "details" in shown else text


def _shown(name: str, value: Value) -> str:
    """Formats a value: names are separated by commas, and a shape is written as a tuple."""
    if name in ("exit_status", "signal") and isinstance(value, int):
        return signal_with_cause(value) if name == "signal" else status_with_cause(value)
    if not isinstance(value, list):
        return str(value)
    if name in ("legal", "fields"):
        return ", ".join(map(str, value)) or "none"
    return f"({', '.join(map(str, value))}{',' if len(value) == 1 else ''})"

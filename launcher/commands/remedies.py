"""Remedies: what a user can change in a study after a failure.

A failure of melissa_gen is recognized by its code. Messages of other programs, for example of the dynamic linker, have
no code: these alone are recognized by their text.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from melissa_gen.protocol.failures import Failure
from melissa_gen.study import Study

__all__ = ["Remedy", "remedy"]

STEPS_FACTOR = 10
"""A solver that sends too many time steps is tried again with this many times the declared ones, to count them."""


class Remedy(NamedTuple):
    """What to change.

    Attributes:
        key: The key of the study to change; "" if only the solver or the environment can be changed.
        fix: The change, in words.
        correct: Returns the study as the solver has it, so that `check` can look for further mistakes; None if that is
            unknown.
    """

    key: str
    fix: str
    correct: Callable[[Study], Study] | None = None


def remedy(failure: Failure) -> Remedy | None:
    """Returns the remedy for a failure, or None if none is known."""
    # The output of another program says more than its exit status.
    for pattern, key, fix in _MESSAGES_OF_OTHER_PROGRAMS:
        match = re.search(pattern, failure.sentence)
        if match:
            return Remedy(key, fix.format(*match.groups()))
    make = _BY_CODE.get(failure.code)
    return None if make is None else make(failure.values)


def _with(study: Study, **simulation: Any) -> Study:
    return study.model_copy(update={"simulation": study.simulation.model_copy(update=simulation)})


def _with_shape(study: Study, name: str, shape: list[int]) -> Study:
    fields = dict(study.simulation.fields)
    fields[name] = fields[name].model_copy(update={"shape": shape})
    return _with(study, fields=fields)


def _too_few_steps(values: Mapping[str, Any]) -> Remedy:
    steps, declared = values["steps"], values["time_steps"]
    if steps == 0:
        return Remedy("simulation.command", f"let the solver send its {declared} time steps")
    return Remedy(
        "simulation.time_steps",
        f"set simulation.time_steps to {steps}, or let the solver send {declared}",
        lambda study: _with(study, time_steps=max(steps, 1)),
    )


def _too_many_steps(values: Mapping[str, Any]) -> Remedy:
    declared = values["time_steps"]
    return Remedy(
        "simulation.time_steps",
        f"set simulation.time_steps to what the solver sends, or let it stop after {declared}",
        lambda study: _with(study, time_steps=STEPS_FACTOR * declared),
    )


def _wrong_shape(values: Mapping[str, Any]) -> Remedy:
    name, found = values["field"], list(values["found"])
    key = f"simulation.fields.{name}.shape"
    return Remedy(
        key,
        f"set {key} to {found}, or give the solver the study's mesh",
        lambda study: _with_shape(study, name, found),
    )


def _unknown_field(values: Mapping[str, Any]) -> Remedy:
    fix = f"declare '{values['field']}' there, or rename it in the solver as in the study"
    return Remedy("simulation.fields", fix)


def _undeclared_fields(values: Mapping[str, Any]) -> Remedy:
    names = ", ".join(values["fields"])
    fix = f"remove {names} there, or declare it in the solver before its loop"
    return Remedy("simulation.fields", fix)


def _not_finite(values: Mapping[str, Any]) -> Remedy:
    return Remedy(
        "parameters",
        "the solver is unstable for a point of the prior: use a smaller time step, or narrow the bounds there",
    )


def _too_slow(values: Mapping[str, Any]) -> Remedy:
    return Remedy("simulation.timeout", "raise simulation.timeout if the solver is only slow")


def _wrong_ranks(values: Mapping[str, Any]) -> Remedy:
    return Remedy(
        "simulation.processes", "let launcher.mpirun name the mpirun of the solver's own MPI"
    )


def _unknown_parameter(values: Mapping[str, Any]) -> Remedy:
    fix = f"add '{values['parameter']}' there, or read a parameter of the study in the solver"
    return Remedy("parameters", fix)


def _process_ended(values: Mapping[str, Any]) -> Remedy | None:
    if values["exit_status"] != 0:
        return None
    return Remedy(
        "simulation.command",
        "the solver has to open a melissa_gen client and send its fields, or to run through simulation.bridge",
    )


_BY_CODE: dict[str, Callable[[Mapping[str, Any]], Remedy | None]] = {
    "too_few_steps": _too_few_steps,
    "too_many_steps": _too_many_steps,
    "wrong_shape": _wrong_shape,
    "unknown_field": _unknown_field,
    "undeclared_fields": _undeclared_fields,
    "not_finite": _not_finite,
    "no_progress": _too_slow,
    "no_output": _too_slow,
    "wrong_ranks": _wrong_ranks,
    "unknown_parameter": _unknown_parameter,
    "process_ended": _process_ended,
    "process_ended_early": _process_ended,
}

_MESSAGES_OF_OTHER_PROGRAMS = (
    (
        r"No module named '([\w.]+)'",
        "",
        "install {0} into the environment that runs melissa-gen",
    ),
    (
        r"error while loading shared libraries: ([^:\s]+)",
        "simulation.environment",
        "add LD_LIBRARY_PATH: the folder that contains {0}",
    ),
)
"""Pattern, key of the study, and fix with the groups of the pattern."""

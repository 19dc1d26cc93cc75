"""What to change in a study for what a client said when it failed."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from melissa_gen.study import Study

__all__ = ["Remedy", "remedy"]

MANY = 10
"""A solver that sends more than so many times the declared steps is not followed to its end."""


class Remedy(NamedTuple):
    """What to change.

    Attributes:
        key: The key of the study to change; "" where only the solver can be.
        fix: What to write there.
        correct: Makes the study as the solver has it, to look for what else is wrong; None where that can't be known.
    """

    key: str
    fix: str
    correct: Callable[[Study], Study] | None = None


def remedy(sentence: str) -> Remedy | None:
    """Returns what to change for a sentence, or None where nothing is known for it."""
    for pattern, key, fix, correct in _REMEDIES:
        match = re.search(pattern, sentence)
        if match:
            found = match.groups()
            correction = None if correct is None else _bound(correct, found)
            return Remedy(key.format(*found), fix.format(*found), correction)
    return None


def _bound(correct: Callable[..., Study], found: tuple[str, ...]) -> Callable[[Study], Study]:
    return lambda study: correct(study, *found)


def _with(study: Study, **simulation: Any) -> Study:
    return study.model_copy(update={"simulation": study.simulation.model_copy(update=simulation)})


def _with_steps(study: Study, sent: str, _: str) -> Study:
    return _with(study, time_steps=max(int(sent), 1))


def _with_more_steps(study: Study, steps: str) -> Study:
    """So many that the solver will say, when it ends, how many it has sent."""
    return _with(study, time_steps=MANY * int(steps))


def _with_shape(study: Study, name: str, shape: str, *_: str) -> Study:
    fields = dict(study.simulation.fields)
    sizes = [int(size) for size in shape.split(",")]
    fields[name] = fields[name].model_copy(update={"shape": sizes})
    return _with(study, fields=fields)


_REMEDIES: tuple[tuple[str, str, str, Callable[..., Study] | None], ...] = (
    (
        r"ended after (\d+) of (\d+) time steps",
        "simulation.time_steps",
        "set simulation.time_steps to {0}, or let the solver send {1}",
        _with_steps,
    ),
    (
        r"the study has (\d+) time steps .* too many",
        "simulation.time_steps",
        "set simulation.time_steps to what the solver sends, or let it stop after {0}",
        _with_more_steps,
    ),
    (
        r"field '(\w+)' has the global shape \(([\d, ]+?),?\); the study says",
        "simulation.fields.{0}.shape",
        "set simulation.fields.{0}.shape to [{1}], or give the solver the study's mesh",
        _with_shape,
    ),
    (
        r"field '(\w+)'.* is not in the study",
        "simulation.fields",
        "declare '{0}' there, or call it in the solver as the study does",
        None,
    ),
    (
        r"the fields? ([\w, ]+) of the study (?:are|is) not declared",
        "simulation.fields",
        "remove {0} there, or declare it in the solver before its loop",
        None,
    ),
    (
        r"field '(\w+)' has (?:\d+ )?values (?:that are NaN|beyond)",
        "parameters",
        "the solver is unstable for a point of the prior: use a smaller time step, or narrow the "
        "bounds there",
        None,
    ),
    (
        r"made no progress for|no new time step for|asked for no simulation within",
        "simulation.timeout",
        "raise simulation.timeout if the solver is only slow",
        None,
    ),
    (
        r"has (\d+) MPI ranks; the study's",
        "simulation.processes",
        "let launcher.mpirun name the mpirun of the solver's own MPI",
        None,
    ),
    (
        r"No module named '([\w.]+)'",
        "",
        "install {0} into the environment that runs melissa-gen",
        None,
    ),
    (
        r"error while loading shared libraries: ([^:\s]+)",
        "simulation.environment",
        "add LD_LIBRARY_PATH: the folder that holds {0}",
        None,
    ),
    (
        r"gives no parameter '(\w+)'",
        "parameters",
        "add '{0}' there, or read in the solver what the study gives",
        None,
    ),
    (
        r"ended with exit status 0",
        "simulation.command",
        "the solver has to open a melissa_gen client and send its fields, or to run through simulation.bridge",
        None,
    ),
)

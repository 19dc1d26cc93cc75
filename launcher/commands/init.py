"""`melissa-gen init`: a study to start from, around the user's own command, or a copy of an example."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path

import jinja2
import typer

from melissa_gen.errors import StudyError, nearest

__all__ = [
    "Answers",
    "ask",
    "copy_example",
    "examples",
    "parse_field",
    "parse_parameter",
    "scaffold",
]

HERE = Path(__file__).parents[1]
KINDS = {
    "python": "a solver in Python that calls melissa_gen",
    "c": "a solver in C or C++ that calls melissa_gen",
    "fortran": "a solver in Fortran that calls melissa_gen",
    "bridge": "an executable that can't be changed",
}
SKELETONS = {
    "python": ("solver.py",),
    "c": ("solver.c", "Makefile"),
    "fortran": ("solver.f90", "Makefile"),
    "bridge": ("solver.sh",),
}
COMMANDS = {
    "python": "python solver.py",
    "c": "./solver",
    "fortran": "./solver",
    "bridge": "./solver.sh",
}
READERS = {
    "csv": "{format: csv, files: '{field}_*.csv', fields: {%s}}",
    "hdf5": "{format: hdf5, files: '*.h5'}",
    "numpy": "{format: numpy, files: '{field}_*.npy'}",
    "vtk": "{format: vtk, files: '*.vtu'}",
    "binary": "{format: binary, files: '{field}_*.bin'}",
    "openfoam": "{format: openfoam}",
    "function": "{format: function, function: 'reader.py:read'}",
}
NOT_COPIED = ("__pycache__", "runs", "build", "library")
LARGEST_RESERVOIR = 1000


@dataclass(frozen=True)
class Answers:
    """What a scaffold is made of.

    Attributes:
        kind: One of `KINDS`.
        command: The user's own; None writes a small one to start from.
        parameters: Name to (low, high).
        fields: Name to shape.
        time_steps: Of one simulation.
        reader: Format of the outputs, for kind bridge.
    """

    kind: str = "python"
    command: str | None = None
    parameters: dict[str, tuple[float, float]] = field(default_factory=lambda: {"a": (0.0, 1.0)})
    fields: dict[str, list[int]] = field(default_factory=lambda: {"u": [16, 16]})
    time_steps: int = 20
    reader: str = "csv"


def examples() -> list[str]:
    """Names of the examples that can be copied."""
    return sorted({path.parent.name for path in (HERE / "examples").glob("*/*.yaml")})


def copy_example(name: str, folder: Path) -> list[Path]:
    """Copies an example.

    Returns:
        Its study files in the new folder.

    Raises:
        StudyError: There is no such example, or the folder is in use.
    """
    known = examples()
    if name not in known:
        msg = f"there is no example '{name}'{nearest(name, known)}; legal: {', '.join(known)}"
        raise StudyError(msg)
    _claim(folder)
    ignored = shutil.ignore_patterns(*NOT_COPIED)
    shutil.copytree(HERE / "examples" / name, folder, ignore=ignored, dirs_exist_ok=True)
    return sorted(folder.glob("*.yaml"))


def parse_parameter(text: str) -> tuple[str, tuple[float, float]]:
    """Reads `name=low:high`."""
    match = re.fullmatch(r"\s*([A-Za-z_]\w*)\s*=\s*([^:]+):([^:]+)", text)
    try:
        if match:
            return match[1], (float(match[2]), float(match[3]))
    except ValueError:
        pass
    msg = f"parameter '{text}': write name=low:high, for example viscosity=0.01:0.1"
    raise StudyError(msg)


def parse_field(text: str) -> tuple[str, list[int]]:
    """Reads `name=64x64`."""
    match = re.fullmatch(r"\s*([A-Za-z_]\w*)\s*=\s*(\d+(?:x\d+)*)\s*", text)
    if match:
        return match[1], [int(size) for size in match[2].split("x")]
    msg = f"field '{text}': write name=shape, for example temperature=64x64"
    raise StudyError(msg)


def ask(given: Answers, missing: set[str]) -> Answers:
    """Asks for what was not given on the command line.

    Args:
        given: With defaults for the rest, which are offered.
        missing: Names of the answers that were not given.
    """
    found = {one.name: getattr(given, one.name) for one in fields(given)}

    def question(name: str, text: str, default: str, read: Callable[[str], object]) -> None:
        while name in missing:
            try:
                found[name] = read(typer.prompt(text, default=default))
                return
            except StudyError as error:
                typer.echo(str(error))

    kinds = "\n".join(f"  {name:8} {text}" for name, text in KINDS.items())
    question("kind", f"What is to be run?\n{kinds}\n", "python", _kind)
    question(
        "command",
        "The command that solves (empty: a small one is written)",
        "",
        lambda text: text or None,
    )
    question(
        "parameters",
        "Parameters, name=low:high, separated by commas",
        "a=0:1",
        lambda text: dict(parse_parameter(one) for one in text.split(",")),
    )
    question(
        "fields",
        "Fields, name=shape, separated by commas",
        "u=16x16",
        lambda text: dict(parse_field(one) for one in text.split(",")),
    )
    question("time_steps", "Time steps that a simulation sends", "20", _count)
    if found["kind"] == "bridge":
        question("reader", f"Format of its outputs ({', '.join(READERS)})", "csv", _reader)
    return Answers(**found)


def scaffold(answers: Answers, folder: Path) -> list[Path]:
    """Writes a study, and where no command was given a small solver to start from.

    Returns:
        The files.

    Raises:
        StudyError: An answer is not legal, or the folder is in use.
    """
    kind, command = _kind(answers.kind), answers.command or COMMANDS[answers.kind]
    own = answers.command is not None
    if kind == "bridge" and not own and answers.reader != "csv":
        msg = f"reader '{answers.reader}' needs your own --command: the small one that is written makes csv"
        raise StudyError(msg)
    _count(str(answers.time_steps))
    samples = 50 * answers.time_steps
    columns = "" if own else ", ".join(f"{name}: value" for name in answers.fields)
    reader = READERS[_reader(answers.reader)].replace(", fields: {%s}" if own else "%s", columns)
    capacity = min(samples, LARGEST_RESERVOIR)
    values = {
        "kind": kind,
        "name": folder.resolve().name,
        "command_text": command,
        "command": json.dumps(_absolute(shlex.split(command))),
        "parameters": answers.parameters,
        "fields": answers.fields,
        "time_steps": answers.time_steps,
        "reader": reader,
        "capacity": capacity,
        "watermark": max(16, min(100, capacity // 4)),
        "native": str(HERE.parent / "client" / "native"),
    }
    _claim(folder)
    names = ["study.yaml", *(() if own else SKELETONS[kind])]
    if kind == "bridge":
        names.append("input.txt")
    engine = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    written = []
    for name in names:
        text = engine.from_string((HERE / "scaffold" / f"{name}.j2").read_text()).render(values)
        path = folder / (f"{name}.j2" if name == "input.txt" else name)
        path.write_text(text, encoding="utf-8")
        if path.suffix == ".sh":
            path.chmod(0o755)
        written.append(path)
    return written


def _claim(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        msg = f"{folder} is there already and not empty; choose another folder"
        raise StudyError(msg)
    folder.mkdir(parents=True, exist_ok=True)


def _kind(text: str) -> str:
    if text not in KINDS:
        msg = f"kind '{text}'{nearest(text, KINDS)}; legal: {', '.join(KINDS)}"
        raise StudyError(msg)
    return text


def _reader(text: str) -> str:
    if text not in READERS:
        msg = f"reader '{text}'{nearest(text, READERS)}; legal: {', '.join(READERS)}"
        raise StudyError(msg)
    return text


def _count(text: str) -> int:
    if not text.strip().isdigit() or int(text) < 1:
        msg = f"'{text}' is not a number of time steps; write a whole number from 1 on"
        raise StudyError(msg)
    return int(text)


def _absolute(words: list[str]) -> list[str]:
    """A command's files as seen from anywhere: those that are here stay where they are."""
    return [
        str(Path(word).resolve()) if "/" in word and Path(word).is_file() else word
        for word in words
    ]

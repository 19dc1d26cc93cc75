"""The command `melissa-gen init`, which creates a study for the user's solver or copies an example."""

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
from melissa_gen.study.yaml_file import to_yaml

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
    """The properties of the study to create.

    Attributes:
        kind: Kind of the solver, one of `KINDS`.
        command: The user's command; None creates a small solver to start from.
        parameters: Lower and upper bound of each parameter, by name.
        fields: Shape of each field, by name.
        time_steps: Number of time steps of a simulation.
        reader: Format of the output files, for the kind `bridge`.
    """

    kind: str = "python"
    command: str | None = None
    parameters: dict[str, tuple[float, float]] = field(default_factory=lambda: {"a": (0.0, 1.0)})
    fields: dict[str, list[int]] = field(default_factory=lambda: {"u": [16, 16]})
    time_steps: int = 20
    reader: str = "csv"


def examples() -> list[str]:
    """Returns the names of the examples that can be copied."""
    return sorted({path.parent.name for path in (HERE / "examples").glob("*/*.yaml")})


def copy_example(name: str, folder: Path) -> list[Path]:
    """Copies an example.

    Args:
        name: Name of the example.
        folder: The folder to create; it must not exist or must be empty.

    Returns:
        The study files in the new folder, the main one first.

    Raises:
        StudyError: There is no such example, or the folder is not empty.
    """
    known = examples()
    if name not in known:
        msg = f"there is no example '{name}'{nearest(name, known)}; legal: {', '.join(known)}"
        raise StudyError(msg)
    _create_folder(folder)
    ignored = shutil.ignore_patterns(*NOT_COPIED)
    shutil.copytree(HERE / "examples" / name, folder, ignore=ignored, dirs_exist_ok=True)
    return sorted(folder.glob("*.yaml"), key=lambda path: (path.name != "study.yaml", path.name))


def _yaml(value: object) -> str:
    """Returns a value as every reader of YAML reads it: words such as `on` and 010 in quotes, and 1.0e-07 for 1e-07."""
    return to_yaml({"value": value}).removeprefix("value: ").rstrip("\n")


def parse_parameter(text: str) -> tuple[str, tuple[float, float]]:
    """Parses a parameter such as `viscosity=0.01:0.1` into its name and bounds."""
    match = re.fullmatch(r"\s*([A-Za-z_]\w*)\s*=\s*([^:]+):([^:]+)", text)
    try:
        if match:
            return match[1], (float(match[2]), float(match[3]))
    except ValueError:
        pass
    msg = f"parameter '{text}': write name=low:high, for example viscosity=0.01:0.1"
    raise StudyError(msg)


def parse_field(text: str) -> tuple[str, list[int]]:
    """Parses a field such as `temperature=64x64` into its name and shape."""
    match = re.fullmatch(r"\s*([A-Za-z_]\w*)\s*=\s*(\d+(?:x\d+)*)\s*", text)
    if match:
        return match[1], [int(size) for size in match[2].split("x")]
    msg = f"field '{text}': write name=shape, for example temperature=64x64"
    raise StudyError(msg)


def ask(given: Answers, missing: set[str]) -> Answers:
    """Prompts for the answers that were not given on the command line.

    Args:
        given: The answers; those that were not given contain the defaults of the prompts.
        missing: Names of the answers that were not given.

    Returns:
        The complete answers.
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
    question("kind", f"Which kind of solver do you have?\n{kinds}\n", "python", _kind)
    question(
        "command",
        "Command of the solver (empty: create a small solver)",
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
    question("time_steps", "Number of time steps per simulation", "20", _count)
    if found["kind"] == "bridge":
        question("reader", f"Format of its output files ({', '.join(READERS)})", "csv", _reader)
    return Answers(**found)


def scaffold(answers: Answers, folder: Path) -> list[Path]:
    """Creates a study, and a small solver to start from if no command was given.

    Args:
        answers: Properties of the study.
        folder: The folder to create; it must not exist or must be empty.

    Returns:
        The files that were written.

    Raises:
        StudyError: An answer is not legal, or the folder is not empty.
    """
    kind, command = _kind(answers.kind), answers.command or COMMANDS[answers.kind]
    own = answers.command is not None
    if kind == "bridge" and not own and answers.reader != "csv":
        msg = f"reader '{answers.reader}' needs your own --command; the solver that init creates writes csv"
        raise StudyError(msg)
    _count(str(answers.time_steps))
    samples = 50 * answers.time_steps
    columns = "" if own else ", ".join(f"{name}: value" for name in answers.fields)
    reader = READERS[_reader(answers.reader)].replace(", fields: {%s}" if own else "%s", columns)
    capacity = min(samples, LARGEST_RESERVOIR)
    values = {
        "kind": kind,
        "name": folder.resolve().name[:100] or "study",
        "command_text": " ".join(command.split()),
        "command": json.dumps(_absolute(shlex.split(command)), ensure_ascii=False),
        "parameters": answers.parameters,
        "fields": answers.fields,
        "time_steps": answers.time_steps,
        "reader": reader,
        "capacity": capacity,
        "watermark": max(16, min(100, capacity // 4)),
        "native": str(HERE.parent / "client" / "native"),
    }
    _create_folder(folder)
    names = ["study.yaml", *(() if own else SKELETONS[kind])]
    if kind == "bridge":
        names.append("input.txt")
    engine = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    engine.filters["yaml"] = _yaml
    written = []
    for name in names:
        text = engine.from_string((HERE / "scaffold" / f"{name}.j2").read_text()).render(values)
        path = folder / (f"{name}.j2" if name == "input.txt" else name)
        path.write_text(text, encoding="utf-8")
        if path.suffix == ".sh":
            path.chmod(0o755)
        written.append(path)
    return written


def _create_folder(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        msg = f"{folder} already exists and is not empty; choose another folder"
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
        msg = f"'{text}' is not a number of time steps; write a whole number of at least 1"
        raise StudyError(msg)
    return int(text)


def _absolute(words: list[str]) -> list[str]:
    """Makes the paths of existing files in a command absolute."""
    return [
        str(Path(word).resolve()) if "/" in word and Path(word).is_file() else word
        for word in words
    ]

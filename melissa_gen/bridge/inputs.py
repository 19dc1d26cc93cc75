"""Renders the parameters of a simulation into the words of a command and into input files."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jinja2

from melissa_gen.errors import StudyError, nearest

__all__ = ["render_words", "write_inputs"]

SUFFIX = ".j2"
_ENGINE = jinja2.Environment(
    undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False
)


def render_words(words: Sequence[str], values: Mapping[str, object]) -> list[str]:
    """Renders the words of a command.

    Args:
        words: Jinja templates.
        values: Names and values that the templates can use.

    Raises:
        StudyError: A word uses an unknown name, or is not a valid template.

    Example:
        >>> render_words(["solver", "--nu={{ nu }}"], {"nu": 0.01})
        ['solver', '--nu=0.01']
    """
    return [_render(word, word, values) for word in words]


def write_inputs(
    inputs: Mapping[str, str], study: Path, folder: Path | None, values: Mapping[str, object]
) -> None:
    """Writes the input files of a simulation.

    Args:
        inputs: Source path in the folder of the study to target path in the folder of the simulation.
        study: Folder of the study.
        folder: Folder of the simulation; None only checks the templates.
        values: Names and values that the templates can use.

    Raises:
        StudyError: A source does not exist, or a template uses an unknown name.
    """
    for source, target in inputs.items():
        path = study / source
        if not path.exists():
            msg = f"there is no file or folder '{source}' in {study}"
            raise StudyError(msg)
        for file, place, template in _files(path, Path(target)):
            text = _rendered(file, values) if template else None
            if folder is None:
                continue
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                shutil.copy(file, folder / place)
            else:
                (folder / place).write_text(text, encoding="utf-8")
                shutil.copymode(file, folder / place)


def _files(path: Path, target: Path) -> Iterator[tuple[Path, Path, bool]]:
    """Yields each input file: its path, its target path, and whether it is a template."""
    if path.is_file():
        yield path, target, True
        return
    for file in sorted(path.rglob("*")):
        if file.is_file():
            place = target / file.relative_to(path)
            template = file.suffix == SUFFIX
            yield file, place.with_suffix("") if template else place, template


def _rendered(file: Path, values: Mapping[str, object]) -> str:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        msg = f"the template {file} is not a text file in UTF-8; put files that are not templates into a folder"
        raise StudyError(msg) from None
    return _render(text, str(file), values)


def _render(text: str, where: str, values: Mapping[str, object]) -> str:
    try:
        return _ENGINE.from_string(text).render(values)
    except jinja2.UndefinedError as error:
        word = str(error.message).split("'")[1] if "'" in str(error.message) else ""
        legal = ", ".join(values)
        msg = f"{where}: {error.message}{nearest(word, values)}; legal: {legal}"
        raise StudyError(msg) from None
    except jinja2.TemplateSyntaxError as error:
        msg = f"{where}: line {error.lineno} is not a Jinja template: {error.message}"
        raise StudyError(msg) from None

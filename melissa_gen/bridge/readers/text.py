"""Reads text files: tables with columns, and numbers one after the other."""

import csv
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from melissa_gen.printed_numbers import numbers, repeated

__all__ = ["read_numbers", "read_table"]

_COMMENT = ("#", "!", "%")
_WORD = re.compile(r'"([^"]*)"|(\S+)')


def read_numbers(path: Path) -> npt.NDArray[np.float64]:
    """Returns all numbers of a file, one after the other, (n,).

    Raises:
        ValueError: A word is not a number, or there are no numbers.
    """
    found: list[float] = []
    for place, line in _lines(path):
        if not line.startswith(_COMMENT):
            found += _at_line(place, partial(numbers, line))
    if not found:
        message = "it has no numbers"
        raise ValueError(message)
    return np.array(found)


def read_table(path: Path) -> dict[str, npt.NDArray[np.float64]]:
    """Returns the columns of a file by name, and by number from "0", (n,) each.

    The names stand in the first line that is no comment, or in the comment before the first line of numbers.

    Raises:
        ValueError: A value is not a number, or rows have different numbers of columns.
    """
    lines = _lines(path)
    rows = [(place, line) for place, line in lines if not line.startswith(_COMMENT)]
    if not rows:
        message = "it has no row of numbers"
        raise ValueError(message)
    place, first = rows[0]
    separator = _separator(first)
    names = _cells(first, separator)
    if _are_numbers(names):
        names = _names_before([line for earlier, line in lines if earlier < place])
        width = len(_values(first, separator))
    else:
        del rows[0]
        width = len(names)
    table = [_at_line(place, partial(_values, line, separator)) for place, line in rows]
    if not table or any(len(row) != width for row in table):
        message = f"it has {width} columns, but not in all of its {len(table)} rows"
        raise ValueError(message)
    columns = np.array(table).T
    found = {str(index): column for index, column in enumerate(columns)}
    return found | (dict(zip(names, columns, strict=True)) if len(names) == width else {})


def _lines(path: Path) -> list[tuple[int, str]]:
    """Returns the number, from 1, and the text of each line that is not empty."""
    # Numbers are ASCII; only names and comments can have characters of another encoding.
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    lines = enumerate(map(str.strip, text.splitlines()), start=1)
    return [(place, line) for place, line in lines if line]


def _at_line(place: int, read: Callable[[], list[float]]) -> list[float]:
    """Returns what a function reads; its errors name the line."""
    try:
        return read()
    except ValueError as error:
        message = f"line {place}: {error}"
        raise ValueError(message) from None


def _separator(line: str) -> str | None:
    """Returns what separates the cells of a line; None means blanks."""
    return next((separator for separator in ";,\t" if separator in line), None)


def _names_before(comments: list[str]) -> list[str]:
    """Returns the names in the last of the comments before the first line of numbers."""
    if not comments:
        return []
    text = comments[-1].lstrip("".join(_COMMENT)).strip()
    return _cells(text, _separator(text))


def _values(line: str, separator: str | None) -> list[float]:
    return [value for cell in _cells(line, separator) for value in repeated(cell)]


def _cells(line: str, separator: str | None) -> list[str]:
    """Returns the cells of a line; one separator at its end is no further cell."""
    if separator is None:
        return [quoted or plain for quoted, plain in _WORD.findall(line)]
    reader = csv.reader([line.rstrip()], delimiter=separator, skipinitialspace=True)
    cells = [cell.strip() for cell in next(reader)]
    return cells[:-1] if len(cells) > 1 and not cells[-1] else cells


def _are_numbers(cells: list[str]) -> bool:
    try:
        for cell in cells:
            repeated(cell)
    except ValueError:
        return False
    return True

"""Reads numbers as programs in any language print them."""

import contextlib
import math
import re

__all__ = ["number", "numbers", "repeated"]

_HEXADECIMAL = re.compile(r"[-+]?0[xX]")
_EXPONENT = re.compile(
    r"([-+]?(?:\d+\.?\d*|\.\d+))"  # 1.5
    r"(?:[dDqQfF]([-+]?\d+)|([-+]\d{3,}))"  # D+03, f-5 or +103
)
_LITERAL = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)[fFlL]")
_SPECIAL = re.compile(
    r"([-+]?)(?:1\.#)?(inf|nan|qnan|snan|ind)(?:0+|16|32|\(\w*\))?", re.IGNORECASE
)
_REPEATED = re.compile(r"(\d+)\*([^*]+)")
_MOST_REPEATED = 1 << 31


def number(text: str) -> float:
    """Returns the number in a text.

    Fortran prints `1.0D+03`, and `1.0+103` where the exponent has three digits; C prints `0x1.8p+1` with `%a`; Julia
    prints `1.5f0`; a literal may end in `f` or `L`. `NaN`, `inf` and `Infinity` are read in any case, and also
    `NaN(...)` of C, `Inf32` of Julia and `1.#INF` of Visual C++. The decimal separator is a point, and digits are not
    grouped.

    Raises:
        ValueError: The text is not a number, for example `****`, which Fortran prints if a width is too small, or
            `1,5` and `1'000`, which some locales print.

    Example:
        >>> number("-1.5D+03"), number("2.0-101"), number("0x1.8p+1")
        (-1500.0, 2e-101, 3.0)
    """
    word = text.strip()
    # Python allows underscores between digits, and no other language prints them.
    if "_" not in word:
        with contextlib.suppress(ValueError):
            return float(word)
    if _HEXADECIMAL.match(word):
        with contextlib.suppress(ValueError, OverflowError):
            return float.fromhex(word)
    if found := _EXPONENT.fullmatch(word):
        return float(f"{found[1]}e{found[2] or found[3]}")
    if found := _LITERAL.fullmatch(word):
        return float(found[1])
    if found := _SPECIAL.fullmatch(word):
        value = math.inf if found[2].lower() == "inf" else math.nan
        return -value if found[1] == "-" else value
    message = f"'{text}' is not a number{_hint(word)}"
    raise ValueError(message)


def repeated(text: str) -> list[float]:
    """Returns the number in a text as often as a repeat count says, as in `3*0.5` of Fortran.

    Raises:
        ValueError: The text is not a number.

    Example:
        >>> repeated("3*0.5"), repeated("2")
        ([0.5, 0.5, 0.5], [2.0])
    """
    if found := _REPEATED.fullmatch(text.strip()):
        count = int(found[1])
        if count > _MOST_REPEATED:
            message = f"'{text}' repeats a number too often"
            raise ValueError(message)
        return [number(found[2])] * count
    return [number(text)]


def numbers(line: str) -> list[float]:
    """Returns all numbers in a line, which are separated by blanks, commas or semicolons.

    Raises:
        ValueError: A word is not a number, or a value is missing between two commas.

    Example:
        >>> numbers("1.0, 2.0  3*0.5,")
        [1.0, 2.0, 0.5, 0.5, 0.5]
    """
    found: list[float] = []
    for part in re.split("[,;]", line.strip().rstrip(",;")):
        if not part.strip():
            message = "a value is missing between two commas"
            raise ValueError(message)
        for word in part.split():
            found += repeated(word)
    return found


def _hint(word: str) -> str:
    """Returns what a text that is not a number may be."""
    if word and not word.strip("*"):
        return "; a Fortran format is too narrow for it"
    if re.fullmatch(r"[-+]?\d+,\d+(?:[eE][-+]?\d+)?", word):
        return "; decimal commas are not read: let the program print points (LC_NUMERIC=C)"
    if re.fullmatch(r"[-+]?\d{1,3}(?:[,.'’\s_]\d{3})+(?:[.,]\d*)?", word):
        return "; groups of digits are not read: let the program print plain digits (LC_NUMERIC=C)"
    return ""

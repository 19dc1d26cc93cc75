"""Reads a number as any language prints it."""

import re

__all__ = ["number"]

_BARE_EXPONENT = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+))([-+]\d{3,})")


def number(text: str) -> float:
    """Returns the number in a text.

    Fortran writes `1.0D+03`, and `1.0+103` where the exponent has three digits; C writes `0x1.8p+1` with `%a`, and a
    literal may end in `f` or `L`. `NaN`, `inf` and `Infinity` are read in any case, with `NaN(...)` of C.

    Raises:
        ValueError: The text is not a number, for example `****`, which Fortran writes where a width is too small.

    Example:
        >>> number("-1.5D+03"), number("2.0-101"), number("0x1.8p+1")
        (-1500.0, 2e-101, 3.0)
    """
    word = text.strip()
    if word.lower().lstrip("+-").startswith("0x"):
        return float.fromhex(word)
    if word.lower().lstrip("+-").startswith("nan("):
        word = "nan"
    if "_" in word:
        message = f"'{text}' is not a number"
        raise ValueError(message)
    if found := _BARE_EXPONENT.fullmatch(word):
        word = f"{found[1]}e{found[2]}"
    elif word[-1:] in "fFlL" and word[-2:-1].isdigit() | (word[-2:-1] == "."):
        word = word[:-1]
    try:
        return float(re.sub(r"(?<=[\d.])[dDqQ](?=[-+]?\d)", "e", word))
    except ValueError:
        hint = "; a Fortran format is too narrow for it" if "*" in word else ""
        message = f"'{text}' is not a number{hint}"
        raise ValueError(message) from None

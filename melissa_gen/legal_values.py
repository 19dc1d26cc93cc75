"""Words for illegal values that the models of a study refuse: what was found, and what is legal instead.

The words of pydantic are those of a programmer. A user reads these.
"""

import reprlib
from typing import Any

__all__ = ["legal_value", "short_value"]


def legal_value(error: Any) -> str:
    """Returns what is legal in place of a value that was refused, in words.

    Args:
        error: One element of `pydantic.ValidationError.errors()`.
    """
    kind: str = error["type"]
    limits = {
        name: int(limit) if isinstance(limit, float) and limit.is_integer() else limit
        for name, limit in error.get("ctx", {}).items()
    }
    if kind in _WORDS:
        return _WORDS[kind].format_map(limits)
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(str(limits["pattern"]), "it has characters that are not legal here")
    message: str = error["msg"]
    return message[0].lower() + message[1:]


_WORDS = {
    "int_type": "an integer is legal",
    "int_parsing": "an integer is legal",
    "int_parsing_size": "an integer of at most 18 digits is legal",
    "int_from_float": "an integer is legal",
    "float_type": "a number is legal",
    "float_parsing": "a number is legal",
    "finite_number": "a finite number is legal",
    "bool_type": "true or false is legal",
    "bool_parsing": "true or false is legal",
    "string_type": "a string is legal",
    "list_type": "a list is legal",
    "dict_type": "a mapping of names to values is legal",
    "literal_error": "legal: {expected}",
    "greater_than": "a number greater than {gt} is legal",
    "greater_than_equal": "a number of at least {ge} is legal",
    "less_than": "a number below {lt} is legal",
    "less_than_equal": "a number of at most {le} is legal",
    "too_short": "the least number of entries is {min_length}",
    "too_long": "at most {max_length} entries are legal",
    "string_too_short": "the least number of characters is {min_length}",
    "string_too_long": "at most {max_length} characters are legal",
}
"""What is legal, by the type of pydantic's error, with the limits of the error."""
_NAME = "letters, digits and _ are legal, and the first character must not be a digit"
_PATTERNS = {
    r"^[A-Za-z_][A-Za-z0-9_]{0,62}$": f"{_NAME}; at most 63 characters",
    r"^[A-Za-z_][A-Za-z0-9_]*$": _NAME,
    r"^[^\x00]*$": "a null character is not legal",
    r"^[^\n\r]+$": "one line of text is legal",
    r"^[^\s'\"\\$`;&|<>]+$": "a word without blanks, quotes and characters of a shell is legal",
    r"^.+\.py:[A-Za-z_]\w*$": "file.py:function is legal",
}
"""The same for strings, by their pattern."""


def short_value(value: Any) -> str:
    """Returns a value in a short form for a message, with the words of YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    words = reprlib.Repr()
    words.maxstring = words.maxother = 60
    return words.repr(value)

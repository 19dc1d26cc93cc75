"""Global options of `melissa-gen`, which are accepted before and after the name of a command."""

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from typer.core import TyperGroup

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["GlobalOptionsGroup", "LogLevel", "options_first"]


class LogLevel(StrEnum):
    """Lowest level of the messages that are written to log files."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


class GlobalOptionsGroup(TyperGroup):
    """A command group that also accepts its own options after the name of a command.

    For example, `melissa-gen run study.yaml --log-level debug` is equivalent to
    `melissa-gen --log-level debug run study.yaml`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Moves the group's options to the front before they are parsed."""
        options = [one for one in self.params if not getattr(one, "is_eager", False)]
        return super().parse_args(ctx, options_first(args, options))


def options_first(words: list[str], options: "Iterable[Any]") -> list[str]:
    """Moves the given options and their values to the front of the arguments; arguments after `--` are not moved."""
    by_name = {name: option for option in options for name in option.opts}
    front: list[str] = []
    rest: list[str] = []
    pending = iter(words)
    for word in pending:
        if word == "--":
            rest += [word, *pending]
            break
        name, equals, _ = word.partition("=")
        if re.fullmatch("-v+", word):
            front.append(word)
        elif name in by_name:
            front.append(word)
            option = by_name[name]
            if not (equals or option.is_flag or option.count):
                front += [value for value in [next(pending, None)] if value is not None]
        else:
            rest.append(word)
    return [*front, *rest]

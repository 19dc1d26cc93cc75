"""The reference of every command, from the Typer application."""

import inspect
import re
from typing import Any

import typer.main

from generators.tables import table
from melissa_gen.launcher.cli import app

__all__ = ["PATH", "names", "pages"]

PATH = "reference/commands.md"


def _group() -> Any:
    return typer.main.get_command(app)


def names() -> list[str]:
    """Returns the names of all commands."""
    return list(_group().commands)


def pages() -> dict[str, str | bytes]:
    """Returns the page."""
    group = _group()
    text = [
        "# Commands\n\nThis page is generated from the command line itself. "
        "`melissa-gen COMMAND --help` prints the same.\n",
        "Exit status: 0 on success, 1 after an error, 2 after a mistake in the study file or on the "
        "command line, 130 after an interruption.\n",
        "## `melissa-gen`\n",
        f"{_help(group)}\n\n```text\nmelissa-gen [OPTIONS] COMMAND [ARGS]...\n```\n",
        _options(group),
    ]
    for name, command in group.commands.items():
        arguments = [_placeholder(one) for one in command.params if _is_argument(one)]
        usage = " ".join(["melissa-gen", name, "[OPTIONS]", *arguments])
        text.append(f"## `{name}`\n\n{_help(command)}\n\n```text\n{usage}\n```\n")
        text.append(_options(command))
    return {PATH: "\n".join(text)}


def _help(command: Any) -> str:
    """Returns the help of a command, without the markup of the terminal."""
    return re.sub(r"\[/?[a-z ]+\]", "", inspect.cleandoc(command.help or ""))


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _placeholder(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return f"{name}..." if _is_argument(parameter) and parameter.nargs == -1 else str(name)


def _options(command: Any) -> str:
    rows = []
    for one in command.params:
        default = "required" if one.required else ""
        if _is_argument(one):
            rows.append((f"`{_placeholder(one)}`", default, one.help or ""))
            continue
        spelled = ", ".join([*one.opts, *one.secondary_opts])
        if not one.is_flag:
            spelled += f" {_placeholder(one)}"
            if one.default not in (None, (), []):
                default = f"`{one.default}`"
        rows.append((f"`{spelled}`", default, one.help or ""))
    return table(("argument or option", "default", "description"), rows) if rows else ""

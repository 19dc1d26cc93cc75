"""The reference of the C and Fortran interfaces, from the header and the module."""

import re
from pathlib import Path
from typing import NamedTuple

__all__ = ["HEADER", "MODULE", "PATH", "Function", "fortran_calls", "functions", "pages"]

ROOT = Path(__file__).resolve().parents[2]
HEADER = ROOT / "melissa_gen" / "client" / "native" / "include" / "melissa_gen.h"
MODULE = ROOT / "melissa_gen" / "client" / "native" / "fortran" / "melissa_gen.f90"
PATH = "reference/c.md"

_COMMENT = r"/\*(?P<comment>(?:[^*]|\*(?!/))*)\*/"
_FUNCTION = re.compile(
    _COMMENT + r"\s*(?P<condition>(?:\#ifdef \w+\s*/?[^\n]*\n)?)\s*MG_API (?P<prototype>[^;]*);"
)
_CODE = re.compile(r"(?P<name>MG_\w+) = (?P<value>\d+),?(?:\s*" + _COMMENT + ")?")


class Function(NamedTuple):
    """A function of the header."""

    name: str
    prototype: str
    comment: str


def functions() -> list[Function]:
    """Returns the functions of the header in their order."""
    text = re.sub(r"^#(ifdef MELISSA_GEN_WITH_MPI|endif).*\n", "", HEADER.read_text(), flags=re.M)
    found = []
    for match in _FUNCTION.finditer(text):
        prototype = " ".join(match["prototype"].split())
        name = re.search(r"(mg_\w+)\(", prototype)
        assert name is not None
        found.append(Function(name[1], prototype, match["comment"]))
    return found


def fortran_calls() -> dict[str, list[str]]:
    """Returns the public procedures of the Fortran module, each with the ways to call it."""
    text = MODULE.read_text()
    public = re.search(r"^ *public :: (mg_client, .*)$", text, flags=re.M)
    assert public is not None
    arguments = {
        match["name"]: match["arguments"]
        for match in re.finditer(
            r"^ *(?:subroutine|function) (?P<name>\w+)\((?P<arguments>[^)]*)\)", text, flags=re.M
        )
    }
    generic = {
        match["name"]: match["procedures"].split(", ")
        for match in re.finditer(
            r"interface (?P<name>mg_\w+)\s+module procedure (?P<procedures>[^\n]*)", text
        )
    }
    calls = {}
    for name in public[1].split(", ")[1:]:
        found = dict.fromkeys(arguments[one] for one in generic.get(name, [name]))
        verb = "" if name == "mg_error" else "call "
        calls[name] = [f"{verb}{name}({one})" for one in found]
    return calls


def _plain(comment: str) -> str:
    lines = [re.sub(r"^\s*\* ?", "", line).rstrip() for line in comment.strip().splitlines()]
    return "\n".join(lines).strip()


def pages() -> dict[str, str | bytes]:
    """Returns the page."""
    text = HEADER.read_text()
    head = re.match(_COMMENT, text)
    codes = _CODE.finditer(text.partition("typedef")[0])
    assert head is not None
    parts = [
        "# C and Fortran interface\n\nThis page is generated from the comments in "
        f"`{HEADER.relative_to(ROOT)}`. C++ uses the same header. "
        "The Fortran module `melissa_gen` has the same calls; see [Fortran](#fortran). "
        "[Use your own solver](../how-to/own-solver.md) has complete programs.\n",
        f"```text\n{_plain(head['comment'])}\n```\n",
        "## Return codes\n",
        "| code | value | meaning |\n| --- | --- | --- |",
        *(
            f"| `{one['name']}` | {one['value']} | {' '.join((one['comment'] or 'success').split())} |"
            for one in codes
        ),
        "\n## Functions\n",
        *(
            f"### `{one.name}`\n\n```c\n{one.prototype};\n```\n\n```text\n{_plain(one.comment)}\n```\n"
            for one in functions()
        ),
        "## Fortran\n\nThe module `melissa_gen`. The last argument `error` of a subroutine has a return code of the "
        "table above. Indices start at 1 and the first index runs fastest: the array `u(nx, ny)` is the study's field "
        "of shape `[ny, nx]`. Values are `real32` or `real64`, of rank 1 to 4.\n",
        "| procedure | call |\n| --- | --- |",
        *(
            f"| `{name}` | {', '.join(f'`{call}`' for call in calls)} |"
            for name, calls in fortran_calls().items()
        ),
        "\nIn `mg_field`, `start` (default: 1) and `extent` (default: the rest) are optional.\n",
    ]
    return {PATH: "\n".join(parts)}

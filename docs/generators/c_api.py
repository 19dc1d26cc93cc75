"""The reference of the C interface, from the comments in its header."""

import re
from pathlib import Path
from typing import NamedTuple

__all__ = ["HEADER", "PATH", "Function", "functions", "pages"]

ROOT = Path(__file__).resolve().parents[2]
HEADER = ROOT / "melissa_gen" / "client" / "native" / "include" / "melissa_gen.h"
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
        "The Fortran module `melissa_gen` has the same calls as subroutines, with a last argument `error`; "
        "see `melissa_gen/client/native/fortran/melissa_gen.f90`. "
        "`simulations/README.md` has complete programs.\n",
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
    ]
    return {PATH: "\n".join(parts)}

"""The codes of failures, from their templates."""

import re

from generators.tables import table
from melissa_gen.protocol.failures import SENTENCES

__all__ = ["PATH", "pages"]

PATH = "reference/failures.md"

_INTRODUCTION = """# Failure codes

This page is generated from `melissa_gen/protocol/failures.py`. A client reports a failure as a code with named
values. The events `simulation_failed` and `client_failed` and the lines of `simulations.jsonl` have the `code`, the
`values`, and the sentence that follows from them as `reason`. `melissa-gen check` chooses its advice by the code.

"""


def pages() -> dict[str, str | bytes]:
    """Returns the page."""
    rows = []
    for code, sentence in SENTENCES.items():
        values = dict.fromkeys(re.findall(r"\{(\w+)\}", sentence))
        shown = sentence.replace("{where}", "").replace("{hint}", "")
        named = [f"`{name}`" for name in values if name not in ("where", "hint")]
        rows.append((f"`{code}`", f"`{shown}`", ", ".join(named)))
    return {PATH: _INTRODUCTION + table(("code", "sentence", "values"), rows)}

"""One section for each sampling method: formula and reference from its module, and its arguments."""

import inspect
import re
import sys

from generators.tables import arguments_table
from melissa_gen.sampling import METHODS

__all__ = ["PATH", "pages"]

PATH = "explanation/samplers.md"

_INTRODUCTION = """# Samplers

A sampler chooses the parameters λ of the next simulations. This page is generated from the modules
of `melissa_gen/sampling/`, one for each method. `sampler.method` names the method, and
`sampler.arguments` holds its arguments.

Notation:

- λ is a point in the parameter space, d its dimension, p(λ) the prior.
- a(λ) is the acquisition: how difficult the surrogate finds λ. β is its exponent.
- q = (1 - ρ) p + ρ g is the law of all proposals: a share ρ of adaptive points with density g, and
  the rest from the prior.
- The loss weighs a sample with (p/q) to the power of `training.importance_exponent`.

"""
_GROUPS = {
    "designs": ("Designs", "These methods do not look at the surrogate."),
    "adaptive": ("Adaptive methods", "These methods learn where the surrogate has large errors."),
}


def pages() -> dict[str, str | bytes]:
    """Returns the page."""
    text = [_INTRODUCTION]
    for group, (title, sentence) in _GROUPS.items():
        text.append(f"## {title}\n\n{sentence}\n")
        for name, method in METHODS.items():
            module = sys.modules[method.arguments.__module__]
            if f".{group}." not in module.__name__:
                continue
            path = module.__name__.replace(".", "/") + ".py"
            text.append(
                f"### `{name}` {{ #{name} }}\n\n{_markdown(module.__doc__ or '', name)}\n\n"
                f"Module: `{path}`\n\n{arguments_table(method.arguments)}"
            )
    return {PATH: "\n".join(text)}


def _markdown(docstring: str, name: str) -> str:
    """Returns a docstring as Markdown: underscores and stars of formulas are not emphasis."""
    text = inspect.cleandoc(docstring).removeprefix(f"`{name}`: ")
    lines = []
    for line in text.splitlines():
        if line.startswith("    "):
            lines.append(line)
            continue
        pieces = re.split(r"(`+[^`]*`+)", line)
        lines.append(
            "".join(
                piece if piece.startswith("`") else re.sub(r"([_<>])", r"\\\1", piece)
                for piece in pieces
            )
        )
    joined = "\n".join(lines)
    return joined[:1].upper() + joined[1:]

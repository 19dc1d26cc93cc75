"""One section for each sampling method: formula and reference from its module, and its arguments."""

import inspect
import re
import sys

from generators.tables import arguments_table
from melissa_gen.sampling import METHODS

__all__ = ["PATH", "pages"]

PATH = "explanation/samplers.md"

_INTRODUCTION = """# Samplers

A sampler chooses the parameters λ of the next simulations. `sampler.method` names the method, and
`sampler.arguments` holds its arguments. [Samplers compared](../benchmarks/samplers.md) has measurements and
advice on what to choose.

## Notation

- λ is a point in the parameter space, d its dimension, p(λ) the prior.
- Independent priors are mapped to the unit cube by their cumulative distribution functions, so that
  the prior is uniform there.
- a(λ) is the acquisition: an estimate of the error of the surrogate at λ. The adaptive methods aim at the
  density g(λ) ∝ p(λ) a(λ)^β.
- q(λ) = (1 - ρ) p(λ) + ρ g(λ) is the density of all proposals. The share ρ grows linearly from 0 to
  `sampler.max_adaptive_share` while the difficulties of the first `sampler.ramp_simulations` simulations are
  learned. At least a tenth of the points comes from the prior, so the importance weights p/q are at most 10. The points
  of the prior are those of a scrambled Sobol sequence, in its order.
- With the argument `gate`, the share is multiplied by a gate in [0, 1] that follows from the skill of the acquisition.
  The skill is the lower confidence bound of a rank correlation over the last 100 simulations: that of the difficulties
  predicted when the points were drawn, and those measured afterwards. Without skill the gate is closed, and the points
  are exactly those of `sobol` with the same seed. `skill` and `gate` are diagnostics of the sampler, in the events, the
  report and TensorBoard.
- The loss of a sample is multiplied by the weight (p/q)^γ, where γ is `training.importance_exponent`.

## Acquisition

Most adaptive methods share one acquisition (`guide: surrogate`). It evaluates the surrogate itself at a
candidate, before it is simulated:

    log a(λ) = w · features(λ)

The main feature is the logarithm of the novelty, ν(λ) = sqrt(φᵀ (Φᵀ Φ + 0.1 I)⁻¹ φ), where φ is the field that the
surrogate predicts at λ and Φ are the predicted fields at all points drawn so far. The weights w are a
ridge regression of the logarithm of the measured difficulty on the features, shrunk towards the slope 3 for
novelty and 0 for all others. Before the surrogate can be evaluated, and with `guide: difficulty`, an ensemble of
small networks regresses difficulty on λ: a(λ) = exp(μ(λ) + κ σ(λ)).

The difficulty of a simulation is an exponential mean over its samples. Each sample is measured on its first
pass through the network, before the optimizer step, because its loss is low after it was trained on, whether the
simulation is difficult or not. `sampler.difficulty` selects the signal.

Near failed simulations, a(λ) is multiplied by an estimate of the probability of success, and the novelty does not count
them as points drawn, because they have taught the surrogate nothing.

`sampler.acquisition` names a class of your own that changes a(λ); see
[Which sampler, when](../how-to/choosing-a-sampler.md#an-acquisition-of-your-own).

With the argument `cost: measured`, a(λ) is divided by the expected run time of a simulation, relative to its geometric
mean: for studies in which some simulations take much longer than others. The run time is measured from the start of a
simulation on a client to its last sample, including the time in which the client waits for the server. Its logarithm
is interpolated between the simulations that have finished, and ignored where the parameters explain less than a tenth
of its variance. The skill, from which the gate follows, is that of the difficulty alone.

The rest of this page is generated from the modules of `melissa_gen/sampling/`, one for each method.

"""
_GROUPS = {
    "designs": ("Designs", "These methods do not use the surrogate."),
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

"""Compares the draws of every sampler with targets p a whose distribution is known.

    python tests/benchmarks/exactness.py
    python tests/benchmarks/exactness.py --methods pool,twisted --targets "bump d=5,ridge"

The figure is the maximum mean discrepancy (MMD) between 1,000 draws of the adaptive part alone, without the prior's
share of the mixture, in generations of 100, and as many exact ones: 0 is the same law. `exact` compares two sets of
exact draws, which is what chance alone gives; `prior` is a sampler that has learned nothing. Methods that aim at
p a^beta are given the true a. `breed`, `conditional_diffusion` and `joint` learn from records and aim at laws of their
own, which are not p a: they are given 512 uniform points with a as their difficulty, and stand here only to say how far
their draws are from p a. Where the target is one bump the second table says how much too narrow the draws are, and the
third how far off.
"""

import numpy as np
import torch
from measure import Result, Target, command_line, environment, finish, table
from numpy.typing import NDArray
from sampler_targets import TARGETS, Known, mmd
from sampler_targets import Target as Law

from melissa_gen.sampling import Prior, create
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.adaptive.acquisition_rule import AcquisitionRule
from melissa_gen.sampling.adaptive.mixture import MixtureSampler

Array = NDArray[np.float64]

METHODS = (
    *(
        "pool",
        "adaptive",
        "rad",
        "twisted",
        "energy",
        "flow",
        "diffusion_posterior",
        "diffusion_prior",
        "gan",
    ),
    *("breed", "conditional_diffusion", "joint"),
)
PLAIN, DPS = "diffusion_posterior/plain", "diffusion_posterior/dps"
ARGUMENTS = {
    "rad": {"c": 0.0},
    PLAIN: {"guidance": "plain", "calibrated": False},
    DPS: {"guidance": "dps", "steps": 50},
}
"""rad with its constant c = 0 aims at p a itself."""
TOLERANCE = {"pool": 0.08, "twisted": 0.15, "flow": 0.08}
TOLERANCE_FROM = 5
"""The tolerances hold up to this dimension."""

_DRAWS, _GENERATION, _RECORDS, _ROUNDS = 1000, 100, 512, 3


def drawn(method: str, d: int, law: Law, rng: np.random.Generator, n: int = _DRAWS) -> Array:
    """Draws (n, d) of the adaptive part of a method aimed at p a."""
    arguments = dict(ARGUMENTS.get(method, {}))
    name = method.partition("/")[0]
    prior = Prior.from_mapping({f"x{k}": {"low": 0.0, "high": 1.0} for k in range(d)})
    aimed = {"rad": "k", "breed": None, "conditional_diffusion": None}.get(name, "beta")
    if aimed is not None:
        arguments[aimed] = 1.0
    sampler = create(name, prior, 1, arguments=arguments)
    assert isinstance(sampler, MixtureSampler)
    rule = sampler.rule
    records = _records(law, d, rng)
    if isinstance(rule, AcquisitionRule):
        rule.acquisition, records = Known(law), records.rows(slice(0, 0))
    for _ in range(_ROUNDS):
        rule.learn(records, rng)
    if not rule.ready:
        return rng.random((n, d))
    # As in a study, a generation at a time.
    sizes = [_GENERATION] * (n // _GENERATION)
    return np.concatenate([rule.propose(size, rng).unit for size in sizes])


def _records(law: Law, d: int, rng: np.random.Generator) -> EvidenceTable:
    unit = rng.random((_RECORDS, d))
    number = np.arange(_RECORDS)
    difficulty = np.exp(law.value(unit))
    fresh = np.ones(_RECORDS, dtype=bool)
    return EvidenceTable(
        number, unit, difficulty, np.ones(_RECORDS, int), np.zeros(_RECORDS), fresh
    )


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--methods", help="comma-separated; default: all")
    parser.add_argument("--targets", help=f"comma-separated, of {', '.join(TARGETS)}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    env = environment()
    names = args.targets.split(",") if args.targets else list(TARGETS)
    methods = args.methods.split(",") if args.methods else [*METHODS, PLAIN, DPS]
    if args.quick:
        names, methods = names[:2], methods[:3]
    found = {m: {n: _measure(m, n) for n in names} for m in ("exact", "prior", *methods)}
    result = Result("MMD to the exact law, 0 is the same", ["method", *names])
    result.rows = [[m, *(round(found[m][n][0], 3) for n in names)] for m in found]
    result.details = {m: {n: list(v) for n, v in row.items()} for m, row in found.items()}
    for method in (m for m in TOLERANCE if m in found):
        low = [n for n in names if TARGETS[n][0] <= TOLERANCE_FROM]
        worst = max(found[method][n][0] for n in low)
        what = f"largest MMD of {method} up to d = {TOLERANCE_FROM}"
        result.targets.append(Target(what, TOLERANCE[method], worst, at_least=False))
    bumps = [n for n in names if TARGETS[n][1]().moments is not None]
    for what, place in (("standard deviation, exact is 1", 1), ("mean, off by so many sd", 2)):
        rows = [[m, *(round(found[m][n][place], 3) for n in bumps)] for m in found]
        result.notes.append(f"\n{what}\n" + table(["method", *bumps], rows))
    finish(result, env, args, "exactness")


def _measure(method: str, name: str) -> tuple[float, float, float]:
    """MMD, ratio of the standard deviations, and difference of the means in standard deviations."""
    d, make = TARGETS[name]
    law, rng = make(), np.random.default_rng(7)
    exact = law.draw(_DRAWS, rng)
    if method == "exact":
        unit = law.draw(_DRAWS, rng)
    elif method == "prior":
        unit = rng.random((_DRAWS, d))
    else:
        unit = drawn(method, d, law, rng)
    mean, sd = law.moments or (0.0, 1.0)
    return mmd(unit, exact), float(unit.std(axis=0).mean()) / sd, (float(unit.mean()) - mean) / sd


if __name__ == "__main__":
    main()

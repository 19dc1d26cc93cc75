"""`external`: a generator of the gest-api standard, such as those of libEnsemble or Xopt, as the adaptive part.

It works in the unit cube: each parameter that varies is a variable on [0, 1], so that it meets any
prior as a uniform one, and the one objective is `difficulty`. What it suggests is g in the mixture
(1-ρ) p + ρ g like any other method's; its density is not known.

The standard has no method to save a generator. The calls to the generator are saved in order, and a restart
repeats them, which is exact if the generator is deterministic.

Needs the package gest-api: `pip install 'melissa-gen[gest]'`.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from melissa_gen.errors import StudyError
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.adaptive.mixture import AdaptiveRule, Draws, MixtureSampler
from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.arguments import Arguments
from melissa_gen.sampling.base import State
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["External", "ExternalArguments", "build"]

Array = NDArray[np.float64]

_KEY = "sampler.arguments.generator"
_DIFFICULTY = "difficulty"
# A point comes back through the parameters' units, which costs some rounding.
_SAME = 1e-9


class ExternalArguments(Arguments):
    """Arguments of `external`."""

    generator: str | None = Field(
        None, description="the generator's class, package.module.Class, e.g. of libEnsemble"
    )
    options: dict[str, Any] = Field({}, description="further arguments of its constructor")
    objective: Literal["EXPLORE", "MAXIMIZE"] = Field(
        "MAXIMIZE", description="what the generator is told to do with the difficulty"
    )
    history: int = Field(1000, ge=10, description="newest records kept")


class External(AdaptiveRule):
    """The `Rule` of `external`.

    Args:
        names: the parameters that vary, in the order of the cube's axes.
        generator: the generator's class.
        options: its further arguments.
        objective: EXPLORE or MAXIMIZE.

    Raises:
        StudyError: the generator can't be made of these.
    """

    name = "external"

    def __init__(
        self, names: list[str], generator: type, options: Mapping[str, Any], objective: str
    ) -> None:
        self._names = names
        self._made_of = names, generator, options, objective
        self._generator: Any = _constructed(*self._made_of)
        self._ids: list[tuple[Array, Any]] = []
        self._told: set[int] = set()
        self._calls: list[list[Any]] = []

    @property
    def ready(self) -> bool:
        """Whether it has been told anything."""
        return len(self._told) > 0 and len(self._names) > 0

    def learn(self, table: EvidenceTable, rng: np.random.Generator) -> None:
        """Tells the generator of each simulation once, when its first difficulty is known."""
        table = table.usable()
        rows = [i for i, n in enumerate(table.simulation.tolist()) if n not in self._told]
        if not rows:
            return
        self._told |= set(table.simulation[rows].tolist())
        results = [
            [*table.unit[i].tolist(), float(table.difficulty[i]), self._id_of(table.unit[i])]
            for i in rows
        ]
        self._calls.append(["ingest", results])
        self._ingest(results)

    def propose(self, n: int, rng: np.random.Generator) -> Draws:
        """Asks for n points."""
        self._calls.append(["suggest", n])
        return Draws(self._suggest(n), np.full(n, -1, dtype=np.int64))

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        return {"calls": [list(call) for call in self._calls], "told": sorted(self._told)}

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self._generator = _constructed(*self._made_of)
        self._ids = []
        self._told = set(state["told"])
        self._calls = [list(call) for call in state["calls"]]
        for verb, given in self._calls:
            self._suggest(given) if verb == "suggest" else self._ingest(given)

    def diagnostics(self) -> dict[str, float]:
        """How many simulations the generator has been told of."""
        return {"told": float(len(self._told))}

    def _suggest(self, n: int) -> Array:
        if not self._names:
            return np.empty((n, 0))
        found: list[dict[str, Any]] = []
        while len(found) < n:
            more = self._generator.suggest(n - len(found))
            if not more:
                msg = f"{_KEY}: {type(self._generator).__name__} suggests no more points."
                raise StudyError(msg)
            found += more
        found = found[:n]
        rows = [[float(point[name]) for name in self._names] for point in found]
        unit: Array = np.clip(np.array(rows).reshape(n, len(self._names)), 0.0, 1.0)
        self._ids += [
            (row, point["_id"]) for row, point in zip(unit, found, strict=True) if "_id" in point
        ]
        return unit

    def _id_of(self, unit: Array) -> Any:
        """The generator's own number of a point (k,) that it suggested, None for another's."""
        for row, number in self._ids:
            if np.abs(row - unit).max() < _SAME:
                return number
        return None

    def _ingest(self, results: list[list[Any]]) -> None:
        names = [*self._names, _DIFFICULTY]
        told = []
        for *row, number in results:
            own = {} if number is None else {"_id": number}
            told.append(dict(zip(names, row, strict=True)) | own)
        if self._generator is not None:
            self._generator.ingest(told)


def _constructed(
    names: list[str], generator: type, options: Mapping[str, Any], objective: str
) -> Any:
    """The generator; None where nothing varies, since the standard has no empty set of variables."""
    from gest_api.vocs import VOCS

    if not names:
        return None
    vocs = VOCS(variables={name: [0.0, 1.0] for name in names}, objectives={_DIFFICULTY: objective})
    try:
        return generator(vocs, **options)
    except Exception as error:
        msg = f"{_KEY}: {generator.__name__} can't be made: {type(error).__name__}: {error}."
        raise StudyError(msg) from error


def _loaded(path: str | None) -> type:
    if path is None or "." not in path:
        msg = (
            f"{_KEY} is {path!r}, package.module.Class is needed, "
            "e.g. libensemble.gen_classes.sampling.UniformSample."
        )
        raise StudyError(msg)
    module, _, name = path.rpartition(".")
    try:
        import gest_api  # noqa: F401

        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        msg = f"{_KEY} is '{path}', which can't be imported: {error}."
        raise StudyError(msg) from None
    if not (isinstance(found, type) and hasattr(found, "suggest") and hasattr(found, "ingest")):
        msg = f"{_KEY} is '{path}', which is no class with the methods suggest and ingest."
        raise StudyError(msg)
    return found


def build(
    prior: Prior, seed: int, arguments: ExternalArguments, schedule: Schedule
) -> MixtureSampler:
    """The `external` sampler.

    Raises:
        StudyError: the generator can't be imported or made.
    """
    kind = _loaded(arguments.generator)
    rule = External(prior.free_names, kind, arguments.options, arguments.objective)
    return MixtureSampler(prior, seed, rule, schedule, arguments.history)

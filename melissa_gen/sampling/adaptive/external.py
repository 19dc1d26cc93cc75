"""`external`: a generator of the gest-api standard as the adaptive part, for example of libEnsemble or Xopt.

The generator works in the unit cube: each parameter that varies is a variable on [0, 1], so that any
prior is uniform for the generator. The only objective is `difficulty`. The suggested points are the
adaptive part g of the mixture (1-ρ) p + ρ g, as for any other method. Their density is unknown: log q
is NaN, and the samples have weight 1 in training.

The standard has no method to save a generator. The calls to the generator are saved in order, and a
restart repeats them. This is exact if the generator is deterministic.

Requires the package gest-api: `pip install 'melissa-gen[gest]'`.

Reference: the generator standard of the package gest-api.
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
# Points are converted to physical units and back, which adds rounding errors.
_ROUNDING = 1e-9


class ExternalArguments(Arguments):
    """Arguments of `external`."""

    generator: str | None = Field(
        None, description="class of the generator as package.module.Class, e.g. of libEnsemble"
    )
    options: dict[str, Any] = Field({}, description="further arguments of the constructor")
    objective: Literal["EXPLORE", "MAXIMIZE"] = Field(
        "MAXIMIZE", description="type of the objective `difficulty`"
    )
    history: int = Field(1000, ge=10, description="number of newest records that are kept")


class External(AdaptiveRule):
    """The adaptive rule of the method `external`.

    Args:
        names: Names of the parameters that vary, in the order of the axes of the unit cube.
        generator: Class of the generator.
        options: Further arguments of its constructor.
        objective: Type of the objective, EXPLORE or MAXIMIZE.

    Raises:
        StudyError: The constructor of the generator has raised an error.
    """

    name = "external"

    def __init__(
        self, names: list[str], generator: type, options: Mapping[str, Any], objective: str
    ) -> None:
        self._names = names
        self._constructor_arguments = names, generator, options, objective
        self._generator: Any = _create_generator(*self._constructor_arguments)
        self._ids: list[tuple[Array, Any]] = []
        self._reported: set[int] = set()
        self._calls: list[list[Any]] = []

    @property
    def ready(self) -> bool:
        """Whether the generator has received at least one result."""
        return len(self._reported) > 0 and len(self._names) > 0

    def learn(self, table: EvidenceTable, rng: np.random.Generator) -> None:
        """Passes the result of each simulation to the generator once, with its first difficulty."""
        table = table.usable()
        rows = [i for i, n in enumerate(table.simulation.tolist()) if n not in self._reported]
        if not rows:
            return
        self._reported |= set(table.simulation[rows].tolist())
        results = [
            [*table.unit[i].tolist(), float(table.difficulty[i]), self._id_of(table.unit[i])]
            for i in rows
        ]
        self._calls.append(["ingest", results])
        self._ingest(results)

    def propose(self, n: int, rng: np.random.Generator) -> Draws:
        """Requests n points (n, k) of the unit cube from the generator.

        Raises:
            StudyError: The generator suggests no more points.
        """
        self._calls.append(["suggest", n])
        return Draws(self._suggest(n), np.full(n, -1, dtype=np.int64))

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        return {"calls": [list(call) for call in self._calls], "reported": sorted(self._reported)}

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self._generator = _create_generator(*self._constructor_arguments)
        self._ids = []
        self._reported = set(state["reported"])
        self._calls = [list(call) for call in state["calls"]]
        for verb, given in self._calls:
            self._suggest(given) if verb == "suggest" else self._ingest(given)

    def diagnostics(self) -> dict[str, float]:
        """Returns the number of simulations whose results were passed to the generator, as `reported`."""
        return {"reported": float(len(self._reported))}

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
        """Returns the generator's `_id` of a point (k,), or None if the generator has not suggested it."""
        for row, number in self._ids:
            if np.abs(row - unit).max() < _ROUNDING:
                return number
        return None

    def _ingest(self, results: list[list[Any]]) -> None:
        names = [*self._names, _DIFFICULTY]
        points = []
        for *row, number in results:
            identity = {} if number is None else {"_id": number}
            points.append(dict(zip(names, row, strict=True)) | identity)
        if self._generator is not None:
            self._generator.ingest(points)


def _create_generator(
    names: list[str], generator: type, options: Mapping[str, Any], objective: str
) -> Any:
    """Creates the generator; None if no parameter varies, because the standard requires a variable."""
    from gest_api.vocs import VOCS

    if not names:
        return None
    vocs = VOCS(variables={name: [0.0, 1.0] for name in names}, objectives={_DIFFICULTY: objective})
    try:
        return generator(vocs, **options)
    except Exception as error:
        msg = f"{_KEY}: {generator.__name__} can't be created: {type(error).__name__}: {error}."
        raise StudyError(msg) from error


def _load_class(path: str | None) -> type:
    if path is None or "." not in path:
        msg = (
            f"{_KEY} is {path!r}; package.module.Class is needed, "
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
        msg = f"{_KEY} is '{path}', which is not a class with the methods suggest and ingest."
        raise StudyError(msg)
    return found


def build(
    prior: Prior, seed: int, arguments: ExternalArguments, schedule: Schedule
) -> MixtureSampler:
    """Creates the `external` sampler.

    Raises:
        StudyError: The generator can't be imported or created.
    """
    kind = _load_class(arguments.generator)
    rule = External(prior.free_names, kind, arguments.options, arguments.objective)
    return MixtureSampler(prior, seed, rule, schedule, arguments.history)

"""Purpose of a run, as recorded in `run.json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

__all__ = ["Purpose"]


@dataclass(frozen=True)
class Purpose:
    """Purpose of the samples of a run.

    Attributes:
        kind: `training`, `data_set` (write a file without training), or `conformance` (check of a study).
        output: File of the data set, or of the observations.
        seed: Seed for drawing the parameters if there is no sampler.
        settings: Settings that determine the content of the data set, in JSON types.
        points: Parameters of each simulation; None: they are drawn from the prior.
        data: Data set files whose trajectories take the place of simulations; none if solvers run.
        stamps: Size, time of change and checksum of each of these files at the start of the run.
        held_out: Indices of the trajectories that are not trained on.
        alone: Whether a network is trained by its equations alone, without solvers and data.
        untried: Whether the server has to try the network before its training, because the launcher has not done so.
        awaits_sets: Whether the launcher still makes the validation sets, while the server starts.
    """

    kind: Literal["training", "data_set", "conformance"] = "training"
    output: str = ""
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    points: list[list[float]] | None = None
    data: list[str] = field(default_factory=list)
    stamps: list[dict[str, Any]] = field(default_factory=list)
    held_out: list[int] = field(default_factory=list)
    alone: bool = False
    untried: bool = False
    awaits_sets: bool = False

    @property
    def trains(self) -> bool:
        """Whether a surrogate is trained."""
        return self.kind == "training"

    @property
    def solves(self) -> bool:
        """Whether solvers run."""
        return not (self.data or self.alone)

    def to_json(self) -> dict[str, Any]:
        """Converts the purpose to JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Self:
        """Inverse of `to_json`. Without data, as in runs of earlier versions, the purpose is training."""
        return cls(**data) if data else cls()

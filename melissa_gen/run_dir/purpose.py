"""What the stream of a run feeds, as recorded in `run.json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

__all__ = ["Purpose"]


@dataclass(frozen=True)
class Purpose:
    """What the samples of a run are for.

    Attributes:
        kind: `training`, `data_set` (a file without training), or `conformance` (the check of a study).
        output: File of the data set, or of the observations.
        seed: Seed of the parameters' draws, where there is no sampler.
        settings: What made the data set, in JSON types.
    """

    kind: Literal["training", "data_set", "conformance"] = "training"
    output: str = ""
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def trains(self) -> bool:
        """Whether a surrogate is trained."""
        return self.kind == "training"

    def to_json(self) -> dict[str, Any]:
        """Returns JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Self:
        """Reads `to_json`; runs of earlier versions, which have none, train."""
        return cls(**data) if data else cls()

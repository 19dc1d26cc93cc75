"""The section of the memory from which batches are drawn."""

from typing import Literal

from pydantic import Field

from melissa_gen.study.base_section import Section
from melissa_gen.units import Size

__all__ = ["ReservoirSection"]


class ReservoirSection(Section):
    """The memory from which each server rank draws its batches."""

    policy: Literal["reservoir", "fifo", "firo"] = "reservoir"
    """`reservoir`: random draws with repetition, and a new sample replaces one that was drawn before; `fifo`: each
    sample once, in the order of arrival; `firo`: each sample once, in random order."""
    capacity: int = Field(gt=0, lt=2**31)
    """Samples that a server rank keeps."""
    watermark: int = Field(gt=0)
    """Samples that each server rank must have before training starts."""
    eviction: Literal["random", "difficulty"] = "random"
    """Which sample that was drawn before makes room for a new one: `random`, any; `difficulty`, one whose last loss
    is not above the mean (as in R3)."""
    draws: Literal["uniform", "difficulty"] = "uniform"
    """How batches are drawn: uniformly, or half of them in proportion to the last loss."""
    max_memory: Size | None = None
    """A run does not start if the reservoir of a rank needs more; default: the free memory of the machine."""
    checkpoint: bool = True
    """Whether checkpoints hold the samples in memory. A resumed run then trains on them; without them, it begins with
    an empty reservoir, and the network may forget finished simulations. Needs twice the reservoir's size on disk."""

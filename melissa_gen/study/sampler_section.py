"""The section of what chooses the parameters of the next simulations."""

from typing import Any, Literal

from pydantic import Field

from melissa_gen.study.base_section import ClassSection, Section

__all__ = ["SamplerSection"]


class SamplerSection(Section):
    """What chooses the parameters of the next simulations."""

    method: str = "adaptive"
    """Name of a sampling method; see the page on samplers for all of them."""
    max_adaptive_share: float = Field(default=0.9, ge=0.0, le=0.9)
    """Largest share of proposals that is not drawn from the prior."""
    ramp_simulations: int = Field(default=12, ge=1)
    """Number of simulations with a measured difficulty after which that share is reached."""
    generation_size: int = Field(default=10, gt=0)
    """Simulations proposed at a time."""
    max_time_share: float = Field(default=0.1, gt=0.0, le=1.0)
    """Largest share of the run time that the sampler computes, in a process of its own beside the trainer. Where a
    generation takes longer, generations grow, up to 16-fold, and then wait; meanwhile clients get points of the prior,
    which are counted as `paced`. The first 10 s are free."""
    difficulty: Literal["loss", "delta_loss", "disagreement", "gradient_norm"] = "loss"
    """Signal of difficulty, measured when a sample is first drawn: `loss`, its normalized loss, or the square of its
    error where `training.metric` is set; `delta_loss`, the excess of the same over the batch; `disagreement` of the
    members of an ensemble; `gradient_norm`, the influence of its gradient at the last layer (arXiv 2110.08611)."""
    acquisition: ClassSection | None = None
    """A class of your own that changes where the sampler proposes: a region of interest, or a quantity derived from the
    predicted fields. An object of it is called with the parameters, the logarithm of the acquisition, and a function
    that returns the predicted fields; it returns the new logarithm."""
    arguments: dict[str, Any] = Field(default={})
    """The method's own arguments."""

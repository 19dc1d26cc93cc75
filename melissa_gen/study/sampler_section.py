"""The section of what chooses the parameters of the next simulations."""

from typing import Any, Literal

from pydantic import Field

from melissa_gen.study.base_section import Section

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
    """Largest share of the run time that the sampler computes: with a slow network, generations grow, up to 16-fold.
    The first 10 s are free."""
    difficulty: Literal["loss", "delta_loss", "disagreement", "gradient_norm"] = "loss"
    """Signal of difficulty, measured when a sample is first drawn: `loss`, its normalized loss, or the square of its
    error where `training.metric` is set; `delta_loss`, the excess of the same over the batch; `disagreement` of the
    members of an ensemble; `gradient_norm`, the influence of its gradient at the last layer (arXiv 2110.08611)."""
    arguments: dict[str, Any] = Field(default={})
    """The method's own arguments."""

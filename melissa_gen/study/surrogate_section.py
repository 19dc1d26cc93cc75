"""The section of the network that learns the simulation."""

from typing import Any, Literal

from pydantic import ConfigDict, Field

from melissa_gen.study.base_section import ClassSection, Section

__all__ = ["EnsembleSection", "SurrogateSection"]


class EnsembleSection(Section):
    """Several members, whose mean is the prediction. Their disagreement measures the uncertainty of the surrogate."""

    kind: Literal["heads", "snapshots", "members"] = "heads"
    """`heads`: one network with as many last layers; `members`: separate networks;
    `snapshots`: the weights at the last generations, at no cost, for the sampler alone."""
    count: int = Field(default=3, ge=2, le=64)
    """Number of members."""


class SurrogateSection(Section):
    """The network that learns the simulation."""

    class_path: str = Field(default="melissa_gen.surrogates.MLP", alias="class")
    """`package.module.Class` or `file.py:Class`, a `torch.nn.Module`; it may import other files of its folder."""
    arguments: dict[str, Any] = Field(default={})
    """Further arguments of its constructor."""
    task: str | ClassSection = "direct"
    """What the network learns. `direct`: (parameters, time) to field; `autoregressive`: (last fields, parameters) to
    next fields; `operator`: (input fields, parameters, time) to field; `pointwise`: (parameters, time, coordinates) to
    values at points; `physics_informed`: the same, with an equation in the loss; or a class `file.py:Class`. Arguments
    are given as `{class: NAME, arguments: {...}}`."""
    ensemble: EnsembleSection | None = None
    """Members whose disagreement is measured. None is a single network; a method that needs members uses snapshots."""

    model_config = ConfigDict(populate_by_name=True)

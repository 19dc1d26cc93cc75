"""The section of the statistics that are computed while the samples arrive."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, field_validator

from melissa_gen.study.base_section import Section
from melissa_gen.study.word_types import Name

__all__ = ["StatisticsSection"]

Probability = Annotated[float, Field(gt=0.0, lt=1.0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class StatisticsSection(Section):
    """Statistics of the fields over all simulations, at each time step and point, in one pass."""

    fields: list[Name] | None = Field(default=None, min_length=1)
    """Names of the fields; none takes all."""
    moments: Literal[2, 3, 4] = 4
    """Highest moment: 2, mean and variance; 3, skewness too; 4, kurtosis too. Minimum and maximum are always there."""
    thresholds: dict[Name, list[Finite]] = Field(default={})
    """For each field the thresholds, in its unit, of which the probability to exceed them is estimated."""
    quantiles: list[Probability] = Field(default=[], max_length=100)
    """Probabilities of the quantiles that are estimated, each with its error."""
    covariance: bool = False
    """Whether covariance and correlation with each parameter are estimated."""
    sobol: bool = False
    """Whether Sobol indices of first and total order are estimated; needs `sampler.method: pick_freeze`."""

    @field_validator("fields")
    @classmethod
    def _different_fields(cls, fields: list[Name] | None) -> list[Name] | None:
        _check_different(fields or ())
        return fields

    @field_validator("quantiles")
    @classmethod
    def _different_quantiles(cls, quantiles: list[Probability]) -> list[Probability]:
        _check_different(quantiles)
        return quantiles

    @field_validator("thresholds")
    @classmethod
    def _different_thresholds(
        cls, thresholds: dict[Name, list[Finite]]
    ) -> dict[Name, list[Finite]]:
        for values in thresholds.values():
            _check_different(values)
        return thresholds


def _check_different(values: Sequence[object]) -> None:
    """Refuses a value that is there twice, because its memory would be needed twice."""
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        msg = f"names {twice} more than once; write it once"
        raise ValueError(msg)

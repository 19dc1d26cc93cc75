"""The section of how the progress of a study is reported to other programs."""

from pathlib import PurePath
from typing import Literal

from pydantic import Field, field_validator

from melissa_gen.study.base_section import Section

__all__ = ["ReportSection", "TrackerName"]

TrackerName = Literal["tensorboard", "mlflow", "wandb", "trackio"]


class ReportSection(Section):
    """What reports the progress of the study to other programs; `launcher.report` is the HTML page."""

    trackers: list[TrackerName] = Field(default=["tensorboard"])
    """Experiment trackers that record the run: `tensorboard` (files in the run directory), `mlflow`, `wandb` (Weights &
    Biases) and `trackio`, each of the last three by the extra of its name.

    They get the keys of the study as parameters, the metrics over time, and at the end the report, the summary and the
    surrogate. A tracker that fails is one warning, and the study continues.
    """
    surrogate_indices: bool = False
    """Whether Sobol indices of the surrogate are computed after the training, for the report.

    They are those of the mean over space of each field at the last time step; extra `sensitivity`.
    """
    prometheus: str | None = None
    """Text file for Prometheus, with the suffix `.prom`, that is rewritten every 5 s; none writes none.

    Put it into the folder that the textfile collector of node_exporter reads; each study needs its own file. A relative
    path starts at the run directory.
    """

    @field_validator("trackers")
    @classmethod
    def _different(cls, names: list[TrackerName]) -> list[TrackerName]:
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            msg = f"names {twice} more than once; write each tracker once"
            raise ValueError(msg)
        return names

    @field_validator("prometheus")
    @classmethod
    def _collected(cls, file: str | None) -> str | None:
        if file is not None and PurePath(file).suffix != ".prom":
            msg = "has another suffix than .prom, which node_exporter needs; write, for example, heat.prom"
            raise ValueError(msg)
        return file

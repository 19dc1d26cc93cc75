"""The section of how the progress of a study is reported to other programs."""

from pathlib import PurePath

from pydantic import field_validator

from melissa_gen.study.base_section import Section

__all__ = ["ReportSection"]


class ReportSection(Section):
    """What reports the progress of the study to other programs; `launcher.report` is the HTML page."""

    prometheus: str | None = None
    """Text file for Prometheus, with the suffix `.prom`, that the launcher rewrites every 5 s; none writes none.

    Put it into the folder that the textfile collector of node_exporter reads; each study needs its own file. A relative
    path starts at the run directory.
    """

    @field_validator("prometheus")
    @classmethod
    def _collected(cls, file: str | None) -> str | None:
        if file is not None and PurePath(file).suffix != ".prom":
            msg = "has another suffix than .prom, which node_exporter needs; write, for example, heat.prom"
            raise ValueError(msg)
        return file

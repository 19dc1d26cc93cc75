"""Records a run with Trackio. TRACKIO_DIR and TRACKIO_SPACE_ID say where; the default is a local database."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import trackio

from melissa_gen.report.trackers.tracker import TrackedRun

__all__ = ["TrackioTracker"]


class TrackioTracker:
    """A run of the project that has the name of the study."""

    def __init__(self) -> None:
        self._run: Any = None
        self._name = ""

    def start(self, run: TrackedRun) -> str:
        """Begins or continues the run; see `Tracker`."""
        self._run = trackio.init(
            project=run.study,
            name=run.name,
            config=dict(run.parameters),
            resume="allow" if run.earlier else "never",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        # Legal characters of the name of an artifact.
        self._name = re.sub(r"[^A-Za-z0-9_.-]", "-", run.name)
        return run.name

    def log(self, metrics: Mapping[str, float], step: int, time: float) -> None:
        """Records numbers; see `Tracker`."""
        self._run.log(dict(metrics), step=step)

    def log_artifact(self, name: str, files: Sequence[Path]) -> None:
        """Records files; see `Tracker`."""
        artifact = trackio.Artifact(f"{name}-{self._name}", type=name)
        for file in files:
            artifact.add_file(str(file))
        self._run.log_artifact(artifact)

    def finish(self, *, succeeded: bool) -> None:
        """Ends the run; see `Tracker`."""
        self._run.finish()

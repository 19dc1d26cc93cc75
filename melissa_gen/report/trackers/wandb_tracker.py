"""Records a run with Weights & Biases. WANDB_MODE, WANDB_PROJECT and its other variables say how, where and as whom."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from melissa_gen.report.trackers.tracker import TrackedRun

__all__ = ["WandbTracker"]


class WandbTracker:
    """A run of the project that has the name of the study."""

    def __init__(self) -> None:
        self._run: Any = None
        self._step = 0

    def start(self, run: TrackedRun) -> str:
        """Begins or continues the run; see `Tracker`."""
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or run.study,
            name=run.name,
            id=run.earlier or None,
            resume="allow" if run.earlier else None,
            dir=str(run.folder),
            config=dict(run.parameters),
            settings=wandb.Settings(console="off", quiet=True),
        )
        self._step = int(self._run.step)
        return str(self._run.id)

    def log(self, metrics: Mapping[str, float], step: int, time: float) -> None:
        """Records numbers; see `Tracker`."""
        # The package drops what has a smaller step than the last call.
        self._step = max(self._step, step)
        self._run.log(dict(metrics), step=self._step)

    def log_artifact(self, name: str, files: Sequence[Path]) -> None:
        """Records files; see `Tracker`."""
        artifact = wandb.Artifact(f"{name}-{self._run.id}", type=name)
        for file in files:
            artifact.add_file(str(file))
        self._run.log_artifact(artifact)

    def finish(self, *, succeeded: bool) -> None:
        """Ends the run; see `Tracker`."""
        self._run.finish(exit_code=0 if succeeded else 1)

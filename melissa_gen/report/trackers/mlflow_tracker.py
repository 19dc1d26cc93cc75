"""Records a run with MLflow. MLFLOW_TRACKING_URI and the other variables of MLflow say where and as whom."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from melissa_gen.report.trackers.tracker import TrackedRun

__all__ = ["MlflowTracker"]

PARAMETERS_OF_A_CALL, LONGEST_VALUE = 100, 500


class MlflowTracker:
    """A run of the experiment that has the name of the study."""

    def __init__(self) -> None:
        self._client, self._run = MlflowClient(), ""

    def start(self, run: TrackedRun) -> str:
        """Creates the run; see `Tracker`."""
        client = self._client
        if run.earlier:
            self._run = run.earlier
            client.update_run(self._run, status="RUNNING")
            return self._run
        self._run = client.create_run(self._experiment(run.study), run_name=run.name).info.run_id
        rows = [Param(key, str(text)[:LONGEST_VALUE]) for key, text in run.parameters.items()]
        for first in range(0, len(rows), PARAMETERS_OF_A_CALL):
            client.log_batch(self._run, params=rows[first : first + PARAMETERS_OF_A_CALL])
        return self._run

    def log(self, metrics: Mapping[str, float], step: int, time: float) -> None:
        """Records numbers; see `Tracker`."""
        moment = round(1000 * time)
        rows = [Metric(key, value, moment, step) for key, value in metrics.items()]
        self._client.log_batch(self._run, metrics=rows)

    def log_artifact(self, name: str, files: Sequence[Path]) -> None:
        """Records files; see `Tracker`."""
        for file in files:
            folder = name if len(files) > 1 else None
            self._client.log_artifact(self._run, str(file), folder)

    def finish(self, *, succeeded: bool) -> None:
        """Ends the run; see `Tracker`."""
        self._client.set_terminated(self._run, "FINISHED" if succeeded else "FAILED")

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(name))
        except MlflowException:
            # Another run of the study has created it meanwhile.
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)

"""A run as a Python object: its summary, events, simulations and surrogate, read from its directory."""

import contextlib
import html
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melissa_gen.errors import DataError, RunError
from melissa_gen.run_dir.events import read_events
from melissa_gen.run_dir.recorded_run import RecordedRun, ValidationCases
from melissa_gen.run_dir.recorded_simulations import read_simulations
from melissa_gen.run_dir.tables import table
from melissa_gen.statistics import STATISTICS_FILE, StatisticsResults
from melissa_gen.study import Study, load_study

if TYPE_CHECKING:
    from melissa_gen.surrogates import Surrogate, SurrogateIndices

__all__ = ["Run", "RunFailedError"]


class Run:
    """A run that has ended or is still running. Only `report` writes files.

    Files are read on first use and cached. Load the run again to see new data of a run that is still running.

    Attributes:
        path: The run directory, absolute.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def load(cls, folder: str | Path) -> "Run":
        """Opens a run directory.

        Args:
            folder: The directory, which `melissa-gen run` has written.

        Raises:
            DataError: The folder is not a run directory.
        """
        path = Path(folder).absolute()
        if not path.is_dir():
            message = f"there is no run directory {path}"
            raise DataError(message)
        if not any((path / name).is_file() for name in ("run.json", "summary.json")):
            message = f"{path} is not a run directory: it holds no run.json"
            raise DataError(message)
        return cls(path)

    @cached_property
    def study(self) -> Study:
        """The study as it was run, including defaults.

        Raises:
            StudyError: `study.yaml` is missing or damaged.
        """
        folder = None
        # If run.json is missing or damaged, relative paths start at the run directory.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            folder = Path(json.loads((self.path / "run.json").read_text("utf-8"))["study_folder"])
        return load_study(self.path / "study.yaml", folder=folder, recorded=True)

    @cached_property
    def recorded(self) -> RecordedRun:
        """The content of the run's files as plain data, from which the report is created."""
        return RecordedRun.read(self.path)

    @property
    def name(self) -> str:
        """The study's name."""
        return self.recorded.name

    @property
    def status(self) -> str:
        """`finished`, `stopped` or `failed`; `running` until `summary.json` exists."""
        return str(self.summary.get("status", "running"))

    @property
    def summary(self) -> dict[str, Any]:
        """The content of `summary.json`; `{}` until the run has ended."""
        return self.recorded.summary

    @cached_property
    def events(self) -> Any:
        """All events in the order in which they were written.

        A pandas data frame if pandas is installed, else a list of records.
        """
        return table(list(read_events(self.path / "events.jsonl")))

    @cached_property
    def simulations(self) -> Any:
        """One row for each simulation: parameters, method, generation, difficulty and status.

        A pandas data frame if pandas is installed, else a list of records.
        """
        path = self.path / "simulations.jsonl"
        found = read_simulations(path) if path.exists() else ()
        return table([record for record in found if record is not None])

    @cached_property
    def validation(self) -> Any:
        """One row for each validation, including the last one.

        A pandas data frame if pandas is installed, else a list of records. The columns `nrmse.mean`, `nrmse.p99`,
        `nrmse.max` ... (`rmse.mean` ... if `training.metric` is `absolute`) are the errors over all validation
        simulations after `batches` batches.
        """
        return table(self.recorded.kind("validation"))

    @property
    def cases(self) -> ValidationCases | None:
        """The errors of all validation simulations and the fields of three; None before the first validation."""
        return self.recorded.cases

    @cached_property
    def statistics(self) -> StatisticsResults:
        """The statistics of the fields, those of the newest checkpoint if the run has not ended.

        Raises:
            DataError: The study computes none, or none have been written yet.
        """
        return StatisticsResults.read(self.path / STATISTICS_FILE)

    def surrogate(self, device: str = "cpu") -> "Surrogate":
        """Loads the trained surrogate, or that of the newest checkpoint if the run has not finished.

        Args:
            device: Device of the weights, for example `cuda`.

        Raises:
            DataError: No surrogate has been saved yet, or it is damaged.
            StudyError: The class of its network can't be imported here.
        """
        from melissa_gen.run_dir.checkpoint_folder import newest
        from melissa_gen.surrogates import load

        final = self.path / "checkpoints" / "final"
        if final.is_dir():
            return load(final, device)
        folder, complaints = newest(self.path)
        if folder is None:
            why = "; ".join(complaints) or "it has no checkpoint yet"
            message = f"the run in {self.path} holds no surrogate: {why}"
            raise DataError(message)
        return load(folder, device)

    def sobol_indices(self, samples: int = 1024, seed: int = 0) -> "dict[str, SurrogateIndices]":
        """Computes the Sobol indices of the surrogate, for the prior of the study.

        They are those of the mean over space of each field at the last time step; see
        `melissa_gen.surrogates.sobol_indices`, which computes those of other times and quantities. They are indices of
        the surrogate, not of the solver: `SurrogateIndices.limits` says how far these may be.

        Args:
            samples: Number of base points, a power of two.
            seed: Seed of the points.

        Raises:
            DataError: The surrogate has no such indices, or the package SALib is missing.
        """
        from melissa_gen.builders.surrogate_indices import indices_of_study

        return indices_of_study(self.study, self.surrogate(), samples, seed)

    def report(self) -> Path:
        """Writes `report.html` into the run directory.

        Returns:
            The path of the file.

        Raises:
            RunError: The file can't be written.
        """
        from melissa_gen.report.html import write_report

        return write_report(self.path)

    def __repr__(self) -> str:
        return f"<Run {self.name}: {self.status}, {self.path}>"

    def _repr_html_(self) -> str:
        """Returns the HTML table that a notebook displays."""
        from melissa_gen.report.key_figures import key_figures

        rows = [("status", self.status), *key_figures(self.summary), ("directory", str(self.path))]
        cells = "".join(
            f'<tr><th style="text-align:left">{html.escape(what)}</th>'
            f'<td style="text-align:left">{html.escape(value)}</td></tr>'
            for what, value in rows
        )
        return f"<table><caption>{html.escape(self.name)}</caption>{cells}</table>"


class RunFailedError(RunError):
    """A run that was started and did not finish.

    Attributes:
        run: The run, with all data that was written before it ended.
    """

    def __init__(self, message: str, run: Run) -> None:
        super().__init__(message)
        self.run = run

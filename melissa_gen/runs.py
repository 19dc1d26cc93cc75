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
from melissa_gen.run_dir.tables import table
from melissa_gen.study import Study, load_study

if TYPE_CHECKING:
    from melissa_gen.surrogates import Surrogate

__all__ = ["Run", "RunFailedError"]


class Run:
    """A run that has ended or is still running. Nothing is written but by `report`.

    Everything is read on first use and kept; load the run again to see what a running one has added.

    Attributes:
        path: The run directory, absolute.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def load(cls, folder: str | Path) -> "Run":
        """Opens a run directory.

        Args:
            folder: The directory that `melissa-gen run` has written.

        Raises:
            DataError: It is not a run directory.
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
        """The study as it was run, complete with defaults.

        Raises:
            StudyError: `study.yaml` is missing or damaged.
        """
        folder = None
        # Without a whole run.json, relative paths start at the run directory.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            folder = Path(json.loads((self.path / "run.json").read_text("utf-8"))["study_folder"])
        return load_study(self.path / "study.yaml", folder=folder)

    @cached_property
    def recorded(self) -> RecordedRun:
        """The files of the run as plain data, the same as the report is made of."""
        return RecordedRun.read(self.path)

    @property
    def name(self) -> str:
        """The study's name."""
        return self.recorded.name

    @property
    def status(self) -> str:
        """`finished`, `stopped` or `failed`; `running` as long as there is no `summary.json`."""
        return str(self.summary.get("status", "running"))

    @property
    def summary(self) -> dict[str, Any]:
        """The content of `summary.json`; `{}` as long as the run has not ended."""
        return self.recorded.summary

    @cached_property
    def events(self) -> Any:
        """All events in the order in which they were written; see `table` for the type."""
        return table(list(read_events(self.path / "events.jsonl")))

    @cached_property
    def simulations(self) -> Any:
        """One row for each simulation: parameters, method, generation, difficulty, status; see `table` for the type."""
        return table(self.recorded.simulations)

    @cached_property
    def validation(self) -> Any:
        """One row for each validation during the training, the last one included; see `table` for the type.

        The columns `nrmse.mean`, `nrmse.p99`, `nrmse.max` ... hold the error over all validation simulations after
        `batches` batches.
        """
        return table(self.recorded.kind("validation"))

    @property
    def cases(self) -> ValidationCases | None:
        """The error of every validation simulation, and three of them in full; None before the first validation."""
        return self.recorded.cases

    def surrogate(self, device: str = "cpu") -> "Surrogate":
        """Loads the trained surrogate; of a run that has not finished, that of the newest checkpoint.

        Args:
            device: Where its weights shall be, for example `cuda`.

        Raises:
            DataError: No surrogate was saved yet, or it is damaged.
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

    def report(self) -> Path:
        """Writes `report.html` into the run directory.

        Returns:
            The file.

        Raises:
            RunError: It can't be written.
        """
        from melissa_gen.report.html import write_report

        return write_report(self.path)

    def __repr__(self) -> str:
        return f"<Run {self.name}: {self.status}, {self.path}>"

    def _repr_html_(self) -> str:
        """What a notebook shows of a run."""
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
        run: The run, with all that was written before it ended.
    """

    def __init__(self, message: str, run: Run) -> None:
        super().__init__(message)
        self.run = run

"""Reads a run directory for the report. Missing or damaged files are listed and raise no error."""

import json
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from melissa_gen.distributions import Distribution, parse_parameter
from melissa_gen.errors import DataError, StudyError
from melissa_gen.run_dir.events import Event, error_name, number_at
from melissa_gen.run_dir.recorded_events import RecordedEvents
from melissa_gen.run_dir.recorded_simulations import SimulationDigest

__all__ = ["RecordedRun", "ValidationCases"]

Floats = npt.NDArray[np.float64]

KEPT = 20_000
"""Largest number of simulations, and of events of each kind, that are kept."""
EVENTS, SIMULATIONS, CASES = "events.jsonl", "simulations.jsonl", "validation_errors.npz"
FIXED_DESIGNS = {"prior", "uniform", "sobol", "halton", "lhs", "grid", "pick_freeze", "table"}


@dataclass(frozen=True, repr=False)
class ValidationCases:
    """Content of `validation_errors.npz`: the error of every case, and three cases with their fields.

    Attributes:
        error_name: What the errors are: `nrmse`, or `rmse` where `training.metric` is `absolute`.
        errors: Error of each validation simulation, `(n,)`.
        names: Names of the three shown cases: best, median, worst.
        index: Indices of the three cases in `errors`.
        parameters: Parameters of the three cases, one mapping each.
        time_steps: Time steps shown, `(k,)`.
        field_name: Name of the field shown.
        unit: Unit of the field, or "".
        true: Field of the solver, `(3, k, *shape)`.
        predicted: Field of the surrogate, `(3, k, *shape)`.
        points: Parameters of all validation simulations, `(n, d)`.
        times: Physical times of the K predicted steps, `(K,)`; empty in files of older versions.
        by_step: Error of each validation simulation at each of these steps, `(n, K)`.
        correlation_times: For each validation simulation, the time of the last step before the correlation of
            prediction and simulation falls below 0.8, `(n,)`.
        fields: The same for each field, with the errors of this field; empty in the elements.
        spectrum: Energy of the wavenumbers 1, 2, ... of the field at S time steps, of the simulations and of the
            predictions, `(2, S, wavenumbers)`; empty if the field is not on a regular grid.
        spectrum_times: Physical times of these S steps, `(S,)`.
    """

    error_name: str
    errors: Floats
    names: list[str]
    index: list[int]
    parameters: list[dict[str, float]]
    time_steps: list[int]
    field_name: str
    unit: str
    true: Floats
    predicted: Floats
    points: Floats
    times: Floats
    by_step: Floats
    correlation_times: Floats
    fields: list["ValidationCases"] = field(default_factory=list)
    spectrum: Floats = field(default_factory=lambda: np.zeros((2, 0, 0)))
    spectrum_times: Floats = field(default_factory=lambda: np.zeros(0))

    def __repr__(self) -> str:
        """Returns the number of simulations and the range of their errors, in place of all arrays."""
        low, high = (self.errors.min(), self.errors.max()) if len(self.errors) else (0.0, 0.0)
        fields = ", ".join(one.field_name for one in self.fields) or self.field_name
        count = f"{len(self.errors)} simulations"
        return f"<ValidationCases: {fields} of {count}, {self.error_name} {low:.3g} to {high:.3g}>"

    @property
    def nrmse(self) -> Floats:
        """The errors, where they are NRMSE; empty otherwise."""
        return self.errors if self.error_name == "nrmse" else np.zeros(0)

    @classmethod
    def read(cls, path: Path) -> "ValidationCases":
        """Reads the file.

        Raises:
            KeyError: An array is missing.
            ValueError: An array has the wrong type, or the file is damaged.
            OSError: The file can't be read.
        """
        with np.load(path, allow_pickle=False) as data:
            index = [int(place) for place in data["case_index"]]
            names = [str(name) for name in data["parameter_names"]]
            rows = data["parameters"][index]
            error = error_name(data)
            whole = cls(
                error_name=error,
                errors=data[error].astype(np.float64),
                names=[str(name) for name in data["case_names"]],
                index=index,
                parameters=[dict(zip(names, map(float, row), strict=True)) for row in rows],
                time_steps=[int(step) for step in data["time_steps"]],
                field_name=str(data["field_name"]),
                unit=str(data["unit"]),
                true=data["true"].astype(np.float64),
                predicted=data["predicted"].astype(np.float64),
                points=data["parameters"].astype(np.float64),
                times=_of_newer_versions(data, "predicted_times"),
                by_step=_of_newer_versions(data, f"{error}_by_step"),
                correlation_times=_of_newer_versions(data, "correlation_times"),
                spectrum=_spectrum(data, ""),
                spectrum_times=_of_newer_versions(data, "spectrum_times"),
            )
            # Older versions wrote only the first field.
            fields = data.get("field_names", ())
            views = [
                replace(
                    whole,
                    field_name=str(name),
                    unit=str(data["units"][k]),
                    errors=data[f"field_{error}"][:, k].astype(np.float64),
                    true=data[f"true_{k}" if k else "true"].astype(np.float64),
                    predicted=data[f"predicted_{k}" if k else "predicted"].astype(np.float64),
                    spectrum=_spectrum(data, f"_{k}" if k else ""),
                )
                for k, name in enumerate(fields)
            ]
            return replace(whole, fields=views or [whole])


def _spectrum(data: Any, end: str) -> Floats:
    found: Floats = np.asarray(data.get(f"spectrum{end}", np.zeros((2, 0, 0))), np.float64)
    return found


@dataclass
class RecordedRun:
    """Content of a run directory.

    Attributes:
        path: The directory.
        study: The study including defaults; `{}` if it can't be read.
        study_text: Text of `study.yaml`.
        summary: Content of `summary.json`; `{}` if it can't be read.
        digest: The simulations of `simulations.jsonl`.
        statuses: The `status` events, evenly thinned to a few thousand, without those of training that was lost with
            a server and repeated.
        seconds: Running time at each status without the pauses between restarts, `(len(statuses),)`.
        events: The other events in order, each with the additional key `running_seconds`. Of each kind, at most `KEPT`
            are kept: evenly thinned if they are drawn as curves, else the newest.
        cases: The validation cases, or None.
        missing: Name of each file that can't be used, to a sentence that gives the reason.
    """

    path: Path
    study: dict[str, Any] = field(default_factory=dict)
    study_text: str = ""
    summary: dict[str, Any] = field(default_factory=dict)
    digest: SimulationDigest = field(default_factory=SimulationDigest)
    statuses: list[Event] = field(default_factory=list)
    seconds: Floats = field(default_factory=lambda: np.zeros(0))
    events: list[Event] = field(default_factory=list)
    cases: ValidationCases | None = None
    missing: dict[str, str] = field(default_factory=dict)
    _kept: int = KEPT
    _history: RecordedEvents | None = None
    _versions: dict[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path | str, kept: int = KEPT) -> "RecordedRun":
        """Reads all files of the directory that exist.

        Args:
            path: The directory.
            kept: Largest number of simulations, and of events of each kind, that are kept in memory.

        Raises:
            DataError: The directory does not exist.
        """
        run = cls(Path(path), _kept=kept)
        run.refresh()
        return run

    def refresh(self) -> None:
        """Reads what was written since the last call: new events, and the other files that have changed.

        Raises:
            DataError: The directory does not exist.
        """
        if not self.path.is_dir():
            text = f"there is no run directory {self.path}"
            raise DataError(text)
        readers = {
            "study.yaml": self._read_study,
            "summary.json": self._read_summary,
            SIMULATIONS: self._read_simulations,
            CASES: self._read_cases,
        }
        for name, read in readers.items():
            version = self._version_on_disk(name)
            if self._versions.get(name) != version:
                self._versions[name] = version
                self.missing = {k: v for k, v in self.missing.items() if k.split()[0] != name}
                read()
        self._read_events()

    def version(self, name: str) -> tuple[int, int]:
        """Returns the time of change (ns) and the size of a file of the directory; zeros if there is none.

        Of a file that `refresh` reads, those of the content that was read: the run may have replaced it since.
        """
        return self._versions.get(name) or self._version_on_disk(name)

    def _version_on_disk(self, name: str) -> tuple[int, int]:
        try:
            found = (self.path / name).stat()
        except OSError:
            return (0, 0)
        return (found.st_mtime_ns, found.st_size)

    @property
    def simulations(self) -> list[dict[str, Any]]:
        """The simulations in order, evenly thinned if there are many."""
        return self.digest.sample

    def column(self, *keys: str) -> Floats:
        """Returns the number under nested keys of each status, NaN if it is missing."""
        return np.array([number_at(status, *keys) for status in self.statuses])

    def kind(self, *kinds: str) -> list[Event]:
        """Returns the events of these kinds, in order."""
        return [event for event in self.events if event["event"] in kinds]

    @property
    def name(self) -> str:
        """Name of the study, from the summary, the study or the first event."""
        starts = self.kind("run_started")
        found = self.summary.get("study") or self.study.get("name")
        return str(found or (starts[0].get("study") if starts else None) or self.path.name)

    @property
    def parameter_names(self) -> list[str]:
        """Names of the parameters in the order of the study, or of the first simulation without a study."""
        declared = self.study.get("parameters")
        if isinstance(declared, dict) and declared:
            return [str(name) for name in declared]
        return list(self.simulations[0].get("parameters") or {}) if self.simulations else []

    def unit(self, parameter: str) -> str:
        """Returns the unit of a parameter, or ""."""
        declared = (self.study.get("parameters") or {}).get(parameter)
        return str(declared.get("unit") or "") if isinstance(declared, dict) else ""

    @property
    def error_name(self) -> str:
        """Name of the validation error: `nrmse`, or `rmse` where `training.metric` is `absolute`."""
        training = self.study.get("training")
        absolute = isinstance(training, dict) and training.get("metric") == "absolute"
        return "rmse" if absolute else "nrmse"

    @property
    def x_first(self) -> bool:
        """Whether the first axis of a field is x: the axes of a domain are in the order x, y, z."""
        return bool((self.study.get("simulation") or {}).get("domain"))

    def logarithmic(self, parameter: str) -> bool | None:
        """Returns whether the network sees a parameter on a log scale; None if its prior can't be read."""
        prior = self.prior(parameter)
        return None if prior is None else prior.logarithmic

    def whole(self, parameter: str) -> bool:
        """Returns whether all values of a parameter are whole numbers; false if its prior can't be read."""
        prior = self.prior(parameter)
        return prior is not None and prior.whole

    def prior(self, parameter: str) -> Distribution | None:
        """Returns the distribution of a parameter in the study; None if it can't be read."""
        declared: Any = (self.study.get("parameters") or {}).get(parameter)
        try:
            return parse_parameter(parameter, declared)
        except (StudyError, TypeError, AttributeError):
            return None

    def samples(self) -> dict[str, Any]:
        """Returns the sample counters of the summary, or else of the last status."""
        found = self.summary.get("samples")
        if not found and self.statuses:
            found = self.statuses[-1].get("samples")
        return dict(found) if isinstance(found, dict) else {}

    def points(self) -> Floats:
        """Returns the parameters of all simulations, `(n, d)`; NaN if unknown."""
        names = self.parameter_names
        rows = [[number_at(one, "parameters", name) for name in names] for one in self.simulations]
        return np.array(rows, dtype=np.float64).reshape(len(self.simulations), len(names))

    def adaptive(self) -> npt.NDArray[np.bool_]:
        """Returns for each simulation whether an adaptive method proposed it, `(n,)`."""
        return np.array(
            [str(one.get("method") or "prior") not in FIXED_DESIGNS for one in self.simulations],
            dtype=bool,
        )

    def _text(self, name: str) -> str | None:
        path = self.path / name
        try:
            return path.read_text("utf-8", "replace")
        except FileNotFoundError:
            self.missing[name] = f"The run directory holds no {name}."
        except OSError as error:
            self.missing[name] = f"{name} can't be read: {error.strerror or error}."
        return None

    def _read_study(self) -> None:
        text = self._text("study.yaml")
        if text is None:
            return
        self.study_text = text
        try:
            study = yaml.safe_load(text)
        except yaml.YAMLError:
            study = None
        if isinstance(study, dict):
            self.study = study
        else:
            self.missing["study.yaml"] = "study.yaml can't be read as YAML."

    def _read_summary(self) -> None:
        text = self._text("summary.json")
        if text is None:
            self.missing["summary.json"] = (
                "The run wrote no summary.json: it is still running, or it was interrupted."
            )
            return
        try:
            summary = json.loads(text)
        except ValueError:
            summary = None
        if isinstance(summary, dict):
            self.summary = summary
        else:
            self.missing["summary.json"] = "summary.json is incomplete and can't be read."

    def _read_simulations(self) -> None:
        name = SIMULATIONS
        try:
            self.digest = SimulationDigest.read(self.path / name, self._kept)
        except FileNotFoundError:
            self.missing[name] = f"The run directory holds no {name}."
            return
        except OSError as error:
            self.missing[name] = f"{name} can't be read: {error.strerror or error}."
            return
        if not self.digest.total:
            self.missing[name] = f"No simulation is recorded in {name}."
        elif self.digest.damaged:
            self.missing[f"{name} lines"] = (
                f"{self.digest.damaged} line(s) of {name} are incomplete and were skipped."
            )

    def _read_events(self) -> None:
        self._history = self._history or RecordedEvents(self.path / EVENTS, self._kept)
        self._history.read_new()
        self.statuses, self.seconds, self.events = self._history.found()
        self.missing.pop(EVENTS, None)
        if not (self.path / EVENTS).exists():
            self.missing[EVENTS] = f"The run directory holds no {EVENTS}."
        elif not self.statuses:
            self.missing[EVENTS] = f"{EVENTS} holds no status: the run ended too early."

    def points_of_mesh(self) -> Floats | None:
        """Returns the coordinates `(n, dimensions)` of an unstructured mesh, or None if the run has none."""
        # Imported here because only few runs have coordinates.
        import h5py

        path = self.path / "coordinates.h5"
        try:
            with h5py.File(path, "r") as file:
                found: Floats = file["points"][...]
        except FileNotFoundError:
            return None
        except (OSError, KeyError) as error:
            self.missing[path.name] = f"{path.name} can't be read: {error}."
            return None
        return found

    def _read_cases(self) -> None:
        name = CASES
        try:
            self.cases = ValidationCases.read(self.path / name)
        except FileNotFoundError:
            self.missing[name] = f"The run directory holds no {name}: no validation was finished."
        except (KeyError, ValueError, IndexError, OSError, zipfile.BadZipFile) as error:
            self.missing[name] = f"{name} can't be read: {error}."


def _of_newer_versions(data: Any, name: str) -> Floats:
    """Returns an array that older versions did not write; empty if it is missing."""
    found: Floats = np.asarray(data.get(name, ()), np.float64)
    return found

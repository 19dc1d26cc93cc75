"""Reads and writes data sets of trajectories in one HDF5 file, in the layout of PDEBench.

Each field is stored under its name, `(n, T, *shape)`; a single field is also linked as `tensor`, its
name in PDEBench. The file also holds `x-coordinate` (and y, z), `t-coordinate` `(T,)`,
`parameters` `(n, d)` with the attribute `names`, `simulation` `(n,)`, `complete` `(n,)`, and the
root attribute `settings`, the JSON text of the settings that determine the data. From melissa_gen,
this module imports only `melissa_gen.errors` and `melissa_gen.run_dir.durable`.

Reference: Takamoto et al., "PDEBench", NeurIPS 2022, arXiv 2210.07182.
"""

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from melissa_gen.errors import DataError
from melissa_gen.run_dir.durable import sync as sync_path

__all__ = ["Dataset", "DatasetWriter", "replace_settings"]

TENSOR = "tensor"
"""Name of the only field in files of PDEBench."""
LAYOUT = 2
"""Version of the layout. Version 1 stored a single field only as `tensor`."""
RESERVED = {"parameters", "simulation", "complete", "t-coordinate"}
AXES = ("x", "y", "z")


class DatasetWriter:
    """Writes a data set file. Each row holds one trajectory.

    The file is written as `path` + ".partial" and renamed when it is closed. Rows can be written in
    any order and interleaved. Rows that were not finished are marked as incomplete, and readers
    skip them.

    Args:
        path: The file. An existing file is replaced when the new one is closed.
        fields: Name of each field to its (shape, dtype).
        time_steps: Number of time steps of each trajectory, T.
        parameter_names: Names in the order of the parameter vectors.
        simulations: Number of rows, n.
        settings: Settings that determine the data, in JSON types. A file with equal settings can be
            reused.
        times: Physical times `(T,)`; default: the time step numbers.
        coordinates: "x" (and "y", "z") to the coordinates of the points along that axis.
        resume: Continue the partial file of an earlier writer with the same sizes and settings.
        sync: Waits until a file or folder is on disk.

    Raises:
        DataError: The file can't be written, the sizes are inconsistent, or the partial file can't be continued.

    Example:
        >>> with DatasetWriter("heat.h5", {"u": ((64,), "f4")}, 10, ["a"], 1, {}) as writer:
        ...     writer.begin(0, simulation=0, parameters=[0.5])
        ...     for step in range(10):
        ...         writer.write(0, step, "u", np.zeros(64))
        ...     writer.finish(0)
    """

    def __init__(
        self,
        path: str | Path,
        fields: Mapping[str, tuple[Sequence[int], DTypeLike]],
        time_steps: int,
        parameter_names: Sequence[str],
        simulations: int,
        settings: Mapping[str, Any],
        times: ArrayLike | None = None,
        coordinates: Mapping[str, ArrayLike] | None = None,
        *,
        resume: bool = False,
        sync: Callable[[Path], None] = sync_path,
    ) -> None:
        self.path = Path(path)
        self._sync = sync
        self.partial = self.path.with_name(self.path.name + ".partial")
        self.fields = {name: (tuple(s), np.dtype(t)) for name, (s, t) in fields.items()}
        self.time_steps = time_steps
        self._names = list(parameter_names)
        self._written = np.zeros((simulations, len(fields), time_steps), np.bool_)
        self._finished = np.zeros(simulations, np.bool_)
        times = np.arange(time_steps) if times is None else times
        axes = {k: np.asarray(v, np.float64) for k, v in (coordinates or {}).items()}
        self._check(np.shape(times), axes)
        with _explained(self.partial, "written"):
            if resume:
                self._open(simulations, settings)
            else:
                self._create(simulations, settings, np.asarray(times, np.float64), axes)

    def _create(
        self,
        simulations: int,
        settings: Mapping[str, Any],
        times: NDArray[np.float64],
        axes: Mapping[str, NDArray[np.float64]],
    ) -> None:
        """Creates all datasets and flushes the structure of the file to disk.

        Space is allocated immediately, so that afterwards only values are written. A file whose writer was killed
        therefore remains readable and can be continued.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        # Use the 1.8 file format, because older formats limit an attribute to 64 kB.
        self._file = h5py.File(self.partial, "w", libver=("v108", "v110"))
        self._file.attrs["settings"] = json.dumps(settings)
        self._file.attrs["fields"] = list(self.fields)
        self._file.attrs["layout"] = LAYOUT
        for name, (shape, dtype) in self.fields.items():
            size = (simulations, self.time_steps, *shape)
            self._file.create_dataset(name, size, dtype, dcpl=early)
        if len(self.fields) == 1 and TENSOR not in self.fields:
            self._file[TENSOR] = self._file[next(iter(self.fields))]
        for axis, points in axes.items():
            self._file[f"{axis}-coordinate"] = points
        self._file["t-coordinate"] = times
        self._file.create_dataset(
            "parameters", data=np.full((simulations, len(self._names)), np.nan)
        )
        names = np.array(self._names, h5py.string_dtype())
        self._file["parameters"].attrs["names"] = names
        self._file.create_dataset("simulation", data=np.full(simulations, -1, np.int64))
        self._file.create_dataset("complete", data=np.zeros(simulations, np.bool_))
        self._file.flush()

    def _open(self, simulations: int, settings: Mapping[str, Any]) -> None:
        """Opens the partial file of an earlier writer."""
        self._file = h5py.File(self.partial, "r+", libver=("v108", "v110"))
        if json.loads(self._file.attrs["settings"]) != json.loads(json.dumps(settings)):
            message = f"{self.partial} can't be continued: it was started with other settings"
            raise DataError(message)
        for name, (shape, dtype) in self.fields.items():
            values = self._file[name]
            if values.shape != (simulations, self.time_steps, *shape) or values.dtype != dtype:
                message = f"{self.partial} can't be continued: field '{name}' has another size"
                raise DataError(message)

    def begin(self, row: int, simulation: int, parameters: ArrayLike) -> None:
        """Starts a row, or starts it again after a failed attempt.

        Args:
            row: Row of the file, 0 to n - 1.
            simulation: Number of the simulation.
            parameters: Physical values `(d,)`.

        Raises:
            DataError: The row is already finished, or the number of parameters is wrong.
        """
        values = np.asarray(parameters, np.float64)
        if values.shape != (len(self._names),):
            message = f"simulation {simulation} has parameters {values.shape}, not {self._names}"
            raise DataError(message)
        if self._finished[row]:
            message = f"row {row} of {self.path} is already finished"
            raise DataError(message)
        self._written[row] = False
        with _explained(self.partial, "written"):
            self._file["simulation"][row] = simulation
            self._file["parameters"][row] = values

    def write(self, row: int, step: int, name: str, array: NDArray[Any]) -> None:
        """Writes one field `(*shape)` at one time step.

        Raises:
            DataError: The field or step does not exist, the shape is wrong, or the disk is full.
        """
        self.write_steps(row, step, name, np.asarray(array)[np.newaxis])

    def write_steps(self, row: int, first: int, name: str, arrays: NDArray[Any]) -> None:
        """Writes one field `(k, *shape)` at k consecutive time steps starting with `first`.

        Raises:
            DataError: The field or a step does not exist, the shape is wrong, or the disk is full.
        """
        if name not in self.fields:
            message = f"{self.path} has no field '{name}': its fields are {', '.join(self.fields)}"
            raise DataError(message)
        shape, last = self.fields[name][0], first + len(arrays)
        if arrays.shape[1:] != shape or not 0 <= first < last <= self.time_steps:
            message = (
                f"steps {first} to {last - 1} of field '{name}' have shape {arrays.shape[1:]}; "
                f"{self.path} holds steps 0 to {self.time_steps - 1} of shape {shape}"
            )
            raise DataError(message)
        with _explained(self.partial, "written"):
            self._file[name][row, first:last] = arrays
        self._written[row, list(self.fields).index(name), first:last] = True

    def finish(self, row: int) -> None:
        """Marks a row as complete.

        Raises:
            DataError: A time step has not been written.
        """
        if not self._written[row].all():
            field, step = np.argwhere(~self._written[row])[0]
            message = (
                f"row {row} of {self.path} can't be finished: "
                f"step {step} of field '{list(self.fields)[field]}' is missing"
            )
            raise DataError(message)
        with _explained(self.partial, "written"):
            self._file["complete"][row] = True
        self._finished[row] = True

    @property
    def rows_finished(self) -> int:
        """Number of complete rows."""
        return int(self._finished.sum())

    def unfinished(self) -> dict[int, NDArray[np.bool_]]:
        """Returns for each started, incomplete row which time steps are completely written, `(T,)`."""
        begun = self._written.any(axis=(1, 2)) & ~self._finished
        return {int(row): self._written[row].all(axis=0) for row in np.flatnonzero(begun)}

    def progress(self) -> dict[str, Any]:
        """Returns the state for `restore`, in JSON types; call `sync` before it is recorded.

        Raises:
            DataError: The disk is full.
        """
        with _explained(self.partial, "written"):
            self._file.flush()
        steps = {
            str(row): np.flatnonzero(whole).tolist() for row, whole in self.unfinished().items()
        }
        return {"complete": np.flatnonzero(self._finished).tolist(), "steps": steps}

    def sync(self) -> None:
        """Waits until everything that was written before the last `progress` is on disk (any thread).

        Raises:
            OSError: It can't be written to disk.
        """
        self._sync(self.partial)

    def restore(self, progress: Mapping[str, Any]) -> None:
        """Restores the `progress()` of an earlier writer. Data written later are overwritten.

        Raises:
            DataError: The file can't be written.
        """
        self._finished[progress["complete"]] = True
        self._written[progress["complete"]] = True
        for row, steps in progress["steps"].items():
            self._written[int(row)][:, steps] = True
        with _explained(self.partial, "written"):
            self._file["complete"][...] = self._finished

    def close(self) -> None:
        """Closes the file and gives it its final name. Further calls have no effect.

        Raises:
            DataError: The remaining data can't be written. The file keeps its partial name.
        """
        if not self._file:
            return
        with _explained(self.partial, "written"):
            self._file.close()
            self._sync(self.partial)
            os.replace(self.partial, self.path)
            self._sync(self.path.parent)

    def abandon(self) -> None:
        """Closes the file under its partial name. The written data remain readable."""
        with contextlib.suppress(OSError, RuntimeError):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _check(self, times: tuple[int, ...], axes: Mapping[str, NDArray[np.float64]]) -> None:
        taken = RESERVED | {f"{axis}-coordinate" for axis in AXES}
        if not self.fields or taken & set(self.fields) or any("/" in name for name in self.fields):
            message = f"fields {list(self.fields)} can't be stored: {sorted(taken)} are reserved"
            raise DataError(message)
        if times != (self.time_steps,):
            message = f"{self.path} needs {self.time_steps} times, not an array {times}"
            raise DataError(message)
        for name, points in axes.items():
            axis = AXES.index(name) if name in AXES else len(AXES)
            lengths = {shape[axis] for shape, _ in self.fields.values() if len(shape) > axis}
            if points.shape not in {(length,) for length in lengths}:
                message = (
                    f"coordinate '{name}' is an array {points.shape}, "
                    f"but the fields have {sorted(lengths) or 'no'} points along it"
                )
                raise DataError(message)


def replace_settings(path: str | Path, settings: Mapping[str, Any]) -> None:
    """Replaces the settings of a data set file that no other process has open.

    Raises:
        DataError: The file can't be written.
    """
    with _explained(Path(path), "written"), h5py.File(path, "r+") as file:
        file.attrs["settings"] = json.dumps(settings)


class Dataset:
    """Reads the complete trajectories of a data set file. Files of PDEBench can also be read.

    Args:
        path: The file.

    Attributes:
        fields: Name of each field to its (shape, dtype).
        time_steps: Number of time steps of each trajectory, T.
        times: Physical times `(T,)`; time step numbers if the file has no times.
        coordinates: Axis ("x", "y", "z") to the coordinates along it, if the file has them.
        names: Names of the parameters.
        parameters: Physical values `(n, d)`, float64.
        simulations: Simulation numbers `(n,)`.
        settings: Settings that determine the data, as passed to the writer.

    Raises:
        DataError: The file is missing, damaged, or has another layout.

    Example:
        >>> with Dataset("heat.h5") as data:
        ...     trajectory = data.read(0)["u"]
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with _explained(self.path, "read"):
            self._file = h5py.File(self.path, "r")
        try:
            with _explained(self.path, "read"):
                self._read_layout()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """Number of complete trajectories, n."""
        return len(self._rows)

    def read(self, row: int, steps: slice = slice(None)) -> dict[str, NDArray[Any]]:
        """Reads one trajectory.

        Args:
            row: Index of the trajectory, 0 to n - 1.
            steps: Time steps to read; default: all.

        Returns:
            Field name to `(T, *shape)`.

        Raises:
            DataError: The file is damaged.
            IndexError: The row does not exist.
        """
        if not 0 <= row < len(self):
            message = f"{self.path} has trajectories 0 to {len(self) - 1}, not {row}"
            raise IndexError(message)
        with _explained(self.path, "read"):
            return {name: values[self._rows[row], steps] for name, values in self._values.items()}

    def require(
        self,
        parameters: Sequence[str],
        fields: Mapping[str, tuple[Sequence[int], DTypeLike]],
        time_steps: int,
    ) -> None:
        """Checks that the file fits a study.

        Args:
            parameters: Names of the parameters of the study, in their order.
            fields: Name of each field of the study to its (shape, dtype).
            time_steps: Number of time steps of the study, T.

        Raises:
            DataError: The file differs; the message names what the file has and what the study has.
        """
        wanted = {name: (tuple(shape), np.dtype(dtype)) for name, (shape, dtype) in fields.items()}
        pairs: list[tuple[str, Any, Any]] = [
            ("the parameters", list(self.names), list(parameters)),
            ("the fields", sorted(self.fields), sorted(wanted)),
            ("trajectories of this number of time steps:", self.time_steps, time_steps),
        ]
        for name in sorted(self.fields.keys() & wanted.keys()):
            (shape, dtype), (study_shape, study_dtype) = self.fields[name], wanted[name]
            pairs.append((f"the field '{name}' with the shape", shape, study_shape))
            pairs.append((f"the field '{name}' with the type", dtype, study_dtype))
        for what, found, expected in pairs:
            if found != expected:
                message = f"{self.path} has {what} {found}, but the study has {expected}"
                raise DataError(message)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_layout(self) -> None:
        file = self._file
        layout = int(file.attrs.get("layout", 1))
        if layout > LAYOUT:
            message = (
                f"{self.path} was written by a newer version of melissa_gen: it has the layout {layout}, "
                f"and this version reads layouts up to {LAYOUT}"
            )
            raise DataError(message)
        names = [str(name) for name in file.attrs.get("fields", [TENSOR])]
        keys = {name: name for name in names}
        if len(names) == 1 and names[0] not in file:
            keys = {names[0]: TENSOR}
        if not keys or not all(isinstance(file.get(key), h5py.Dataset) for key in keys.values()):
            message = f"{self.path} is not a data set: it has neither '{TENSOR}' nor named fields"
            raise DataError(message)
        self._values = {name: file[key] for name, key in keys.items()}
        sizes = {values.shape[:2] for values in self._values.values()}
        if len(sizes) != 1 or len(next(iter(sizes))) < 2:
            message = f"{self.path} is not a data set: its fields have sizes {sorted(sizes)}"
            raise DataError(message)
        total, self.time_steps = sizes.pop()
        self.fields = {name: (v.shape[2:], v.dtype) for name, v in self._values.items()}
        self._rows = np.flatnonzero(self._column("complete", np.ones(total, np.bool_)))
        self.simulations = self._column("simulation", np.arange(total))[self._rows]
        self.parameters = self._column("parameters", np.zeros((total, 0)))[self._rows]
        self.names = self._parameter_names()
        self.times = self._column("t-coordinate", np.arange(self.time_steps, dtype=np.float64))
        self.coordinates = {
            axis: file[f"{axis}-coordinate"][...] for axis in AXES if f"{axis}-coordinate" in file
        }
        self.settings: dict[str, Any] = json.loads(file.attrs.get("settings", "{}"))

    def _parameter_names(self) -> list[str]:
        count = self.parameters.shape[1]
        if "parameters" not in self._file:
            return []
        names = [str(name) for name in self._file["parameters"].attrs.get("names", [])]
        if len(names) != count:
            message = f"{self.path} has {count} parameters with the names {names}"
            raise DataError(message)
        return names

    def _column(self, name: str, default: NDArray[Any]) -> NDArray[Any]:
        if name not in self._file:
            return default
        values: NDArray[Any] = self._file[name][...]
        if name == "t-coordinate":
            # Some files of PDEBench have one more time than time steps.
            values = values[: self.time_steps]
        if values.ndim != default.ndim or len(values) != len(default):
            message = (
                f"'{name}' in {self.path} has shape {values.shape}, not {len(default)} entries"
            )
            raise DataError(message)
        return values


@contextlib.contextmanager
def _explained(path: Path, verb: str) -> Iterator[None]:
    """Converts exceptions of HDF5 to a `DataError` that names the file."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        message = f"{path} can't be {verb}: there is no such file or folder"
        raise DataError(message) from error
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        # HDF5 reports the errno of a failed write only in the text of the exception.
        full = getattr(error, "errno", None) == errno.ENOSPC or f"errno = {errno.ENOSPC}," in str(
            error
        )
        reason = "the disk is full" if full else str(error)
        message = f"{path} can't be {verb}: {reason}"
        raise DataError(message) from error

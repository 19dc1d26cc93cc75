"""Writes data set files."""

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from melissa_gen.dataset.layout import AXES, INPUTS, LAYOUT, MESH, RESERVED, TENSOR, explained
from melissa_gen.dataset.raw_file import RawFile
from melissa_gen.errors import DataError
from melissa_gen.run_dir.durable import sync as sync_path

__all__ = ["DatasetWriter", "replace_settings"]

_COLUMNS = ("parameters", "simulation", "complete")


class DatasetWriter:
    """Writes a data set file. Each row holds one trajectory.

    The file is written as `path` + ".partial" and renamed when it is closed. Rows can be written in
    any order and interleaved. Rows that were not finished are marked as incomplete, and readers
    skip them.

    Several processes can write one file. The first creates it; each then opens it with `resume` and writes its own
    `rows`. At the end all `sync` and `abandon` it, except one, which then calls `close`.

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
        inputs: Name of each input field to its (shape, dtype).
        mesh: `coordinates` `(N, D)` and `cells` `(m, k)` of an unstructured mesh.
        rows: Whether this writer writes each row, `(n,)`; default: it writes all.
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
        inputs: Mapping[str, tuple[Sequence[int], DTypeLike]] | None = None,
        mesh: Mapping[str, NDArray[Any]] | None = None,
        rows: NDArray[np.bool_] | None = None,
        sync: Callable[[Path], None] = sync_path,
    ) -> None:
        self.path = Path(path)
        self._sync = sync
        self.partial = self.path.with_name(self.path.name + ".partial")
        self.fields = {name: (tuple(s), np.dtype(t)) for name, (s, t) in fields.items()}
        self.inputs = {n: (tuple(s), np.dtype(t)) for n, (s, t) in (inputs or {}).items()}
        self.time_steps = time_steps
        self._names = list(parameter_names)
        self._written = np.zeros((simulations, len(fields), time_steps), np.bool_)
        self._finished = np.zeros(simulations, np.bool_)
        self._rows = np.ones(simulations, np.bool_) if rows is None else rows
        times = np.arange(time_steps) if times is None else times
        axes: dict[str, NDArray[Any]] = {
            k: np.asarray(v, np.float64) for k, v in (coordinates or {}).items()
        }
        self._check(np.shape(times), axes)
        constants = {f"{axis}-coordinate": points for axis, points in axes.items()}
        with explained(self.partial, "written"):
            if resume:
                self._check_partial(simulations, settings)
            else:
                constants |= {f"{MESH}/{name}": array for name, array in (mesh or {}).items()}
                self._create(simulations, settings, np.asarray(times, np.float64), constants)
            names = [*self.fields, *(f"{INPUTS}/{name}" for name in self.inputs), *_COLUMNS]
            self._file = RawFile(self.partial, names)

    def _create(
        self,
        simulations: int,
        settings: Mapping[str, Any],
        times: NDArray[np.float64],
        constants: Mapping[str, NDArray[Any]],
    ) -> None:
        """Creates the file with all datasets.

        Space is allocated immediately, so that afterwards only values are written. A file whose writer was killed
        therefore remains readable and can be continued.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        # Use the 1.8 file format, because older formats limit an attribute to 64 kB.
        with h5py.File(self.partial, "w", libver=("v108", "v110")) as file:
            file.attrs["settings"] = json.dumps(settings)
            file.attrs["fields"] = list(self.fields)
            file.attrs["layout"] = LAYOUT
            for name, (shape, dtype) in self.fields.items():
                size = (simulations, self.time_steps, *shape)
                file.create_dataset(name, size, dtype, dcpl=early)
            for name, (shape, dtype) in self.inputs.items():
                key = f"{INPUTS}/{name}"
                file.create_dataset(key, (simulations, *shape), dtype, dcpl=early)
            if len(self.fields) == 1 and TENSOR not in self.fields:
                file[TENSOR] = file[next(iter(self.fields))]
            for name, array in constants.items():
                file[name] = array
            file["t-coordinate"] = times
            file.create_dataset("parameters", data=np.full((simulations, len(self._names)), np.nan))
            file["parameters"].attrs["names"] = np.array(self._names, h5py.string_dtype())
            file.create_dataset("simulation", data=np.full(simulations, -1, np.int64))
            file.create_dataset("complete", data=np.zeros(simulations, np.bool_))

    def _check_partial(self, simulations: int, settings: Mapping[str, Any]) -> None:
        """Checks that the partial file of an earlier writer can be continued."""
        with h5py.File(self.partial, "r") as file:
            if json.loads(file.attrs["settings"]) != json.loads(json.dumps(settings)):
                message = f"{self.partial} can't be continued: it was started with other settings"
                raise DataError(message)
            for name, (shape, dtype) in self.fields.items():
                values = file[name]
                if values.shape != (simulations, self.time_steps, *shape) or values.dtype != dtype:
                    message = f"{self.partial} can't be continued: field '{name}' has another size"
                    raise DataError(message)
            for name, (shape, dtype) in self.inputs.items():
                held = file.get(f"{INPUTS}/{name}")
                if held is None or held.shape != (simulations, *shape) or held.dtype != dtype:
                    message = f"{self.partial} can't be continued: input '{name}' has another size"
                    raise DataError(message)

    def begin(
        self,
        row: int,
        simulation: int,
        parameters: ArrayLike,
        inputs: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """Starts a row, or starts it again after a failed attempt.

        Args:
            row: Row of the file, 0 to n - 1.
            simulation: Number of the simulation.
            parameters: Physical values `(d,)`.
            inputs: Name of each input field to its values `(*shape)`.

        Raises:
            DataError: The row is already finished, the number of parameters is wrong, or an input is
                missing or has another shape.
        """
        values = np.asarray(parameters, np.float64)
        if values.shape != (len(self._names),):
            message = f"simulation {simulation} has parameters {values.shape}, not {self._names}"
            raise DataError(message)
        if self._finished[row]:
            message = f"row {row} of {self.path} is already finished"
            raise DataError(message)
        given = inputs or {}
        found = {name: np.shape(values) for name, values in given.items()}
        if found != (expected := {name: shape for name, (shape, _) in self.inputs.items()}):
            message = (
                f"simulation {simulation} has the inputs {found}; {self.path} holds {expected}"
            )
            raise DataError(message)
        self._written[row] = False
        with explained(self.partial, "written"):
            self._file.write("simulation", (row,), simulation)
            self._file.write("parameters", (row,), values)
            for name, array in given.items():
                self._file.write(f"{INPUTS}/{name}", (row,), array)

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
        with explained(self.partial, "written"):
            self._file.write(name, (row, first), arrays)
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
        with explained(self.partial, "written"):
            self._file.write("complete", (row,), True)
        self._finished[row] = True

    @property
    def rows_finished(self) -> int:
        """Number of complete rows that this writer has written, or that `restore` has found."""
        return int(self._finished.sum())

    def unfinished(self) -> dict[int, NDArray[np.bool_]]:
        """Returns for each started, incomplete row which time steps are completely written, `(T,)`."""
        begun = self._written.any(axis=(1, 2)) & ~self._finished
        return {int(row): self._written[row].all(axis=0) for row in np.flatnonzero(begun)}

    def progress(self) -> dict[str, Any]:
        """Returns the state for `restore`, in JSON types; call `sync` before it is recorded."""
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
        """Restores the rows of this writer in the `progress()` of an earlier one. Data written later are overwritten.

        Raises:
            DataError: The file can't be written.
        """
        complete = [row for row in progress["complete"] if self._rows[row]]
        self._finished[complete] = True
        self._written[complete] = True
        for row, steps in progress["steps"].items():
            if self._rows[int(row)]:
                self._written[int(row)][:, steps] = True
        with explained(self.partial, "written"):
            for row in np.flatnonzero(self._rows).tolist():
                self._file.write("complete", (row,), self._finished[row])

    def close(self) -> None:
        """Closes the file and gives it its final name. Further calls have no effect.

        Raises:
            DataError: The remaining data can't be written. The file keeps its partial name.
        """
        if self._file.closed:
            return
        with explained(self.partial, "written"):
            self._file.close()
            self._sync(self.partial)
            os.replace(self.partial, self.path)
            self._sync(self.path.parent)

    def abandon(self) -> None:
        """Closes the file under its partial name. The written data remain readable."""
        with contextlib.suppress(OSError):
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
    with explained(Path(path), "written"), h5py.File(path, "r+") as file:
        file.attrs["settings"] = json.dumps(settings)

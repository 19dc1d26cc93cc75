"""Reads data set files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import DTypeLike, NDArray

from melissa_gen.dataset.layout import INPUTS, LAYOUT, MESH, TENSOR, explained
from melissa_gen.dataset.pdebench import coordinates_of, fields_of, times_of
from melissa_gen.errors import DataError

__all__ = ["Dataset"]


class Dataset:
    """Reads the complete trajectories of a data set file. Files of PDEBench can also be read.

    Args:
        path: The file.
        complete: Whether trajectories that are not complete are left out.

    Attributes:
        fields: Name of each field to its (shape, dtype).
        inputs: Name of each input field to its (shape, dtype).
        time_steps: Number of time steps of each trajectory, T.
        times: Physical times `(T,)`; time step numbers if the file has no times.
        coordinates: Axis ("x", "y", "z") to the coordinates along it, if the file has them.
        mesh: `coordinates` `(N, D)` and `cells` `(m, k)` of an unstructured mesh, if the file has them.
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

    def __init__(self, path: str | Path, *, complete: bool = True) -> None:
        self.path, self._complete = Path(path), complete
        self.fields: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        self.inputs: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        self._values: dict[str, Any] = {}
        self._input_values: dict[str, Any] = {}
        with explained(self.path, "read"):
            self._file = h5py.File(self.path, "r")
        try:
            with explained(self.path, "read"):
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
        place = self._place(row)
        with explained(self.path, "read"):
            return {name: values[place, steps] for name, values in self._values.items()}

    def read_inputs(self, row: int) -> dict[str, NDArray[Any]]:
        """Reads the input fields of one trajectory.

        Args:
            row: Index of the trajectory, 0 to n - 1.

        Returns:
            Name to `(*shape)`.

        Raises:
            DataError: The file is damaged.
            IndexError: The row does not exist.
        """
        place = self._place(row)
        with explained(self.path, "read"):
            return {name: values[place] for name, values in self._input_values.items()}

    def require(
        self,
        parameters: Sequence[str],
        fields: Mapping[str, tuple[Sequence[int], DTypeLike]],
        time_steps: int,
        inputs: Mapping[str, tuple[Sequence[int], DTypeLike]] | None = None,
    ) -> None:
        """Checks that the file fits a study.

        Args:
            parameters: Names of the parameters of the study, in their order.
            fields: Name of each field of the study to its (shape, dtype).
            time_steps: Number of time steps of the study, T.
            inputs: Name of each input field of the study to its (shape, dtype). The file may hold more.

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
        for name, (needed, kind) in (inputs or {}).items():
            held = self.inputs.get(name)
            if held is None:
                message = f"{self.path} has no input '{name}', which the study needs"
                raise DataError(message)
            pairs.append((f"the input '{name}' with the shape", held[0], tuple(needed)))
            pairs.append((f"the input '{name}' with the type", held[1], np.dtype(kind)))
        for what, found, expected in pairs:
            if found != expected:
                message = f"{self.path} has {what} {found}, but the study has {expected}"
                raise DataError(message)

    def rename_tensor(self, name: str) -> None:
        """Gives the only field of a file of PDEBench, `tensor`, the name that a study has for it."""
        if list(self.fields) == [TENSOR]:
            self.fields = {name: self.fields[TENSOR]}
            self._values = {name: self._values[TENSOR]}

    def set_parameters(self, values: Mapping[str, float]) -> None:
        """Gives all trajectories of a file without parameters the same ones.

        Args:
            values: Name of each parameter to its physical value.
        """
        self.names = list(values)
        self.parameters = np.tile(np.array([*values.values()], np.float64), (len(self), 1))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _place(self, row: int) -> int:
        if not 0 <= row < len(self):
            message = f"{self.path} has trajectories 0 to {len(self) - 1}, not {row}"
            raise IndexError(message)
        return int(self._rows[row])

    def _read_layout(self) -> None:
        file = self._file
        layout = int(file.attrs.get("layout", 1))
        if layout > LAYOUT:
            message = (
                f"{self.path} was written by a newer version of melissa_gen: it has the layout {layout}, "
                f"and this version reads layouts up to {LAYOUT}"
            )
            raise DataError(message)
        self._values = self._fields_in(file)
        if not self._values:
            message = f"{self.path} is not a data set: it has neither '{TENSOR}' nor named fields"
            raise DataError(message)
        sizes = {values.shape[:2] for values in self._values.values()}
        if len(sizes) != 1 or len(next(iter(sizes))) < 2:
            message = f"{self.path} is not a data set: its fields have sizes {sorted(sizes)}"
            raise DataError(message)
        total, self.time_steps = sizes.pop()
        self.fields = {name: (v.shape[2:], v.dtype) for name, v in self._values.items()}
        group = file.get(INPUTS)
        if isinstance(group, h5py.Group):
            self._input_values = dict(group.items())
            self.inputs = {n: (v.shape[1:], v.dtype) for n, v in self._input_values.items()}
        whole = np.ones(total, np.bool_)
        self._rows = np.flatnonzero(self._column("complete", whole) if self._complete else whole)
        self.simulations = self._column("simulation", np.arange(total))[self._rows]
        self.parameters = self._column("parameters", np.zeros((total, 0)))[self._rows]
        self.names = self._parameter_names()
        self.times = self._times_in(file)
        self.coordinates = coordinates_of(file)
        mesh = file.get(MESH)
        self.mesh: dict[str, NDArray[Any]] = (
            {name: values[...] for name, values in mesh.items()}
            if isinstance(mesh, h5py.Group)
            else {}
        )
        self.settings: dict[str, Any] = json.loads(file.attrs.get("settings", "{}"))

    def _fields_in(self, file: h5py.File) -> dict[str, Any]:
        """Returns the fields: name to an array `(n, T, *shape)`; empty if they are not all there."""
        if "fields" not in file.attrs:
            return fields_of(file)
        names = [str(name) for name in file.attrs["fields"]]
        keys = {name: name for name in names}
        if len(names) == 1 and names[0] not in file:
            keys = {names[0]: TENSOR}
        whole = all(isinstance(file.get(key), h5py.Dataset) for key in keys.values())
        return {name: file[key] for name, key in keys.items()} if whole else {}

    def _times_in(self, file: h5py.File) -> NDArray[Any]:
        found = times_of(file)
        if found is None:
            return np.arange(self.time_steps, dtype=np.float64)
        # Some files of PDEBench have one more time than time steps.
        times = found[: self.time_steps]
        if times.shape != (self.time_steps,):
            message = f"{self.path} has {len(times)} times, but {self.time_steps} time steps"
            raise DataError(message)
        return times

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
        if values.ndim != default.ndim or len(values) != len(default):
            message = (
                f"'{name}' in {self.path} has shape {values.shape}, not {len(default)} entries"
            )
            raise DataError(message)
        return values

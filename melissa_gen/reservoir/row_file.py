"""Saves rows of a slot store to a file while training and reception continue, and reads them back.

The format is safetensors. A row is a sample in memory. Each row has a CRC-32 over its inputs and fields. The small
columns (simulation, time step, whether it was drawn) share one CRC-32 in the file's metadata. The input fields are
stored once for each simulation.
"""

import json
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from melissa_gen.errors import DataError
from melissa_gen.reservoir.samples import Inputs, StoredRows
from melissa_gen.reservoir.slot_store import SlotStore

__all__ = ["RowReader", "RowSaver"]

INPUTS, CHECKSUMS, FIELD = "inputs", "checksums", "field."
SIMULATIONS, SIMULATION_CHECKSUMS, INPUT_FIELD = "simulations", "simulation_checksums", "input."
_COLUMN = "column."
_CHUNK_BYTES = 1 << 20
_SYNC_BYTES = 64 << 20
_DTYPES = {"f8": "F64", "f4": "F32", "i8": "I64", "i4": "I32", "u4": "U32", "b1": "BOOL"}


class RowSaver:
    """Writes rows to a file on a thread of its own, while their slots may be released by others.

    A slot that is released before its row is written is first written by the releasing thread (copy on write), so that
    no second copy of the rows is needed in memory. `SlotStore.release` does this for the saver that is its `saver`.

    Args:
        store: The store.
        rows: The rows to save.
        path: The file; an existing file is replaced.

    Attributes:
        nbytes: Size of the file in bytes.

    """

    def __init__(self, store: SlotStore, rows: StoredRows, path: Path) -> None:
        self._store, self._slots = store, rows.slots
        count = len(rows.slots)
        self._index = np.full(store.slots, -1, np.int64)
        self._index[rows.slots] = np.arange(count)
        self._pending = np.zeros(store.slots, bool)
        self._pending[rows.slots] = True
        self._checksums = np.zeros(count, np.uint32)
        self._lock = threading.Lock()
        self._error: OSError | None = None
        self._arrays = {INPUTS: store.inputs} | {
            FIELD + name: array for name, array in store.arrays.items()
        }
        self._columns = {_COLUMN + name: column for name, column in rows.columns.items()}
        shapes = {
            name: (array.dtype, (count, *array.shape[1:])) for name, array in self._arrays.items()
        }
        shapes |= {name: (column.dtype, column.shape) for name, column in self._columns.items()}
        shapes[CHECKSUMS] = (self._checksums.dtype, (count,))
        # Input fields never change: a reference is enough until they are written.
        self._input_fields = {
            int(store.simulations[slot]): store.input_fields[slot]
            for slot in (rows.slots.tolist() if store.input_specs else ())
        }
        shapes |= _input_shapes(store, len(self._input_fields))
        self._header, self._offsets, self.nbytes = _header(shapes, _checksum_of(self._columns))
        self._path, self._file = path, -1

    def run(self, canceled: Callable[[], bool] = lambda: False) -> bool:
        """Writes all rows that are not written yet, and syncs the file to disk.

        Args:
            canceled: Checked between chunks of about 1 MB.

        Returns:
            False if it was canceled.

        Raises:
            OSError: The file can't be written.
        """
        try:
            unsynced = 0
            with self._lock:
                self._open()
            for slots in self._chunks():
                if canceled():
                    return False
                with self._lock:
                    unsynced += self._save(slots[self._pending[slots]])
                if unsynced > _SYNC_BYTES:
                    # Here, this thread waits for the disk; otherwise the threads of the trainer and of ingest would
                    # wait, as soon as the system limits its unwritten pages.
                    os.fdatasync(self._file)
                    unsynced = 0
            if self._error is not None:
                raise self._error
            _write(self._file, self._checksums, self._offsets[CHECKSUMS])
            self._write_inputs()
            os.fsync(self._file)
        finally:
            with self._lock:
                self._pending[:] = False
                if self._file >= 0:
                    os.close(self._file)
        return True

    def before_release(self, slot: int) -> None:
        """Writes the row of a slot that will be released, unless it is written; any thread."""
        if not self._pending[slot]:
            return
        with self._lock:
            if self._pending[slot]:
                try:
                    self._save(np.array([slot]))
                except OSError as error:
                    # The thread that releases a slot must not fail because of a file; `run` raises this error.
                    self._error = error
                    self._pending[:] = False

    def _open(self) -> None:
        """Creates the file and writes all that is known already, with the lock held."""
        if self._file < 0:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
            os.truncate(self._file, self.nbytes)
            _write(self._file, np.frombuffer(self._header, np.uint8), 0)
            for name, column in self._columns.items():
                _write(self._file, column, self._offsets[name])

    def _write_inputs(self) -> None:
        """Writes the input fields of each simulation."""
        if not self._store.input_specs:
            return
        checksums = np.zeros(len(self._input_fields), np.uint32)
        for place, fields in enumerate(self._input_fields.values()):
            for name in self._store.input_specs:
                values = fields[name]
                _write(
                    self._file, values, self._offsets[INPUT_FIELD + name] + place * values.nbytes
                )
                checksums[place] = _continued(values, int(checksums[place]))
        simulations = np.array(list(self._input_fields), np.int64)
        _write(self._file, simulations, self._offsets[SIMULATIONS])
        _write(self._file, checksums, self._offsets[SIMULATION_CHECKSUMS])

    def _chunks(self) -> Iterator[NDArray[np.intp]]:
        row = sum(a.nbytes // len(a) for a in self._arrays.values())
        size = max(_CHUNK_BYTES // max(row, 1), 1)
        for begin in range(0, len(self._slots), size):
            yield self._slots[begin : begin + size]

    def _save(self, slots: NDArray[np.intp]) -> int:
        """Writes the rows of ascending slots, with the lock held; returns the number of bytes."""
        if not len(slots):
            return 0
        self._open()
        written = 0
        # Slots without a gap are adjacent in memory and in the file.
        for run in np.split(slots, np.flatnonzero(np.diff(slots) != 1) + 1):
            first, last, place = int(run[0]), int(run[-1]) + 1, int(self._index[run[0]])
            checksums = np.zeros(len(run), np.uint32)
            for name, array in self._arrays.items():
                rows = array[first:last]
                _write(
                    self._file,
                    rows,
                    self._offsets[name] + place * (rows.nbytes // max(len(rows), 1)),
                )
                checksums = _row_checksums(rows, checksums)
                written += rows.nbytes
            self._checksums[place : place + len(run)] = checksums
        self._pending[slots] = False
        return written


class RowReader:
    """Reads a file of a `RowSaver`. Rows are read in pieces from a memory map.

    Args:
        path: The file.

    Attributes:
        columns: Name to one value of each row, `(n,)`.

    Raises:
        DataError: The file is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = ExitStack()
        try:
            self._open()
        except DataError:
            self._stack.close()
            raise

    def _open(self) -> None:
        # Imported here, because only a resumed run reads such a file.
        import safetensors

        try:
            self._file: Any = self._stack.enter_context(
                safetensors.safe_open(str(self._path), framework="np")
            )
            metadata = self._file.metadata() or {}
            found = {
                name: self._file.get_tensor(name) for name in metadata.get("columns", "").split()
            }
            self._checksums: NDArray[np.uint32] = self._file.get_tensor(CHECKSUMS)
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            message = f"{self._path}: {error}"
            raise DataError(message) from error
        if metadata.get("checksum") != str(_checksum_of(found)):
            message = f"{self._path}: the checksum of its columns is wrong"
            raise DataError(message)
        self.columns = {name.removeprefix(_COLUMN): column for name, column in found.items()}

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._checksums)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def read(self, wanted: NDArray[np.intp], store: SlotStore, slots: NDArray[np.intp]) -> None:
        """Reads rows into slots of a store.

        Args:
            wanted: Numbers of the rows, ascending, `(n,)`.
            store: A store with the same fields.
            slots: Acquired slots of the store, `(n,)`.

        Raises:
            DataError: A row is damaged, or the file has other fields. Some slots may have been written.
        """
        targets = {INPUTS: store.inputs} | {
            FIELD + name: array for name, array in store.arrays.items()
        }
        names = {*self._file.keys()}
        for name, array in targets.items():
            whole = self._file.get_slice(name) if name in names else None
            if whole is None or tuple(whole.get_shape()[1:]) != array.shape[1:]:
                message = f"{self._path}: {name} is missing or has another shape than in the study"
                raise DataError(message)
        row = sum(a.nbytes // len(a) for a in targets.values())
        size = max(_CHUNK_BYTES // max(row, 1), 1)
        for begin in range(0, len(self), size):
            low, high = np.searchsorted(wanted, (begin, begin + size))
            if low < high:
                self._read_piece(wanted[low:high], targets, slots[low:high])
        if store.input_specs:
            self._read_inputs(wanted, store, slots)

    def _read_inputs(
        self, wanted: NDArray[np.intp], store: SlotStore, slots: NDArray[np.intp]
    ) -> None:
        """Reads the input fields of the simulations of some rows."""
        names = {*self._file.keys()}
        for name, (shape, _) in store.input_specs.items():
            key = INPUT_FIELD + name
            if key not in names or tuple(self._file.get_slice(key).get_shape()[1:]) != tuple(shape):
                message = f"{self._path}: {key} is missing or has another shape than in the study"
                raise DataError(message)
        places = {n: k for k, n in enumerate(self._file.get_tensor(SIMULATIONS).tolist())}
        checksums = self._file.get_tensor(SIMULATION_CHECKSUMS)
        found: dict[int, Inputs] = {}
        for slot, simulation in zip(
            slots.tolist(), self.columns["simulation"][wanted].tolist(), strict=True
        ):
            if simulation not in found:
                place, checksum, one = places.get(simulation), 0, {}
                if place is not None:
                    one = {
                        name: self._file.get_slice(INPUT_FIELD + name)[place : place + 1]
                        for name in store.input_specs
                    }
                for values in one.values():
                    checksum = _continued(values, checksum)
                if place is None or checksum != checksums[place]:
                    message = f"{self._path}: the checksum of the inputs of a simulation is wrong"
                    raise DataError(message)
                found[simulation] = {name: values[0].copy() for name, values in one.items()}
            store.input_fields[slot] = found[simulation]

    def _read_piece(
        self,
        wanted: NDArray[np.intp],
        targets: Mapping[str, NDArray[Any]],
        slots: NDArray[np.intp],
    ) -> None:
        first, last = int(wanted[0]), int(wanted[-1]) + 1
        checksums = np.zeros(len(wanted), np.uint32)
        for name, array in targets.items():
            rows = self._file.get_slice(name)[first:last][wanted - first]
            checksums = _row_checksums(rows, checksums)
            array[slots] = rows
        if not np.array_equal(checksums, self._checksums[wanted]):
            message = f"{self._path}: the checksum of a sample is wrong"
            raise DataError(message)


def _input_shapes(
    store: SlotStore, simulations: int
) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Returns type and shape of the tensors of the input fields; none if the study has none."""
    found: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
        INPUT_FIELD + name: (np.dtype(dtype), (simulations, *shape))
        for name, (shape, dtype) in store.input_specs.items()
    }
    if found:
        found[SIMULATIONS] = (np.dtype(np.int64), (simulations,))
        found[SIMULATION_CHECKSUMS] = (np.dtype(np.uint32), (simulations,))
    return found


def _continued(values: NDArray[Any], checksum: int) -> int:
    return zlib.crc32(np.ascontiguousarray(values).tobytes(), checksum)


def _header(
    shapes: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]], checksum: int
) -> tuple[bytes, dict[str, int], int]:
    """Returns the header of a safetensors file, the offset of each tensor, and the size of the file."""
    entries: dict[str, Any] = {}
    begins: dict[str, int] = {}
    position = 0
    # Wide types first, so that all values are aligned.
    for name, (dtype, shape) in sorted(shapes.items(), key=lambda item: -item[1][0].itemsize):
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        entries[name] = {
            "dtype": _DTYPES[dtype.str[1:]],
            "shape": list(shape),
            "data_offsets": [position, position + size],
        }
        begins[name] = position
        position += size
    columns = " ".join(name for name in shapes if name.startswith(_COLUMN))
    entries["__metadata__"] = {"checksum": str(checksum), "columns": columns}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    offsets = {name: start + begin for name, begin in begins.items()}
    return len(text).to_bytes(8, "little") + text, offsets, start + position


def _checksum_of(columns: Mapping[str, NDArray[Any]]) -> int:
    checksum = 0
    for name in sorted(columns):
        checksum = zlib.crc32(np.ascontiguousarray(columns[name]).tobytes(), checksum)
    return checksum


def _row_checksums(rows: NDArray[Any], before: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Returns the CRC-32 of each row, continued from `before`, `(n,)`."""
    raw = np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)
    found = [zlib.crc32(row.data, known) for row, known in zip(raw, before.tolist(), strict=True)]
    return np.array(found, np.uint32)


def _write(file: int, values: NDArray[Any], offset: int) -> None:
    """Writes an array at an offset of a file."""
    rest = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
    while rest:
        written = os.pwrite(file, rest, offset)
        rest, offset = rest[written:], offset + written

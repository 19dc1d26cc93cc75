"""Several data set files as one sequence of trajectories, which are read in parts."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from melissa_gen.dataset.reader import Dataset
from melissa_gen.errors import DataError

__all__ = ["PART_BYTES", "Trajectories"]

PART_BYTES = 16_000_000
"""Size of the parts in which trajectories are read. Two of them are in memory."""


class Trajectories:
    """The complete trajectories of data set files, one file after the other.

    Args:
        paths: The files, at least one.
        check: Checks that a file fits, and raises a `DataError` if not.
        without: Indices of trajectories to leave out.
        part_bytes: Size of the parts in which trajectories are read.

    Attributes:
        parameters: Physical values `(n, d)`, float64.

    Raises:
        DataError: A file is missing, damaged or does not fit, or no trajectory is left.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        check: Callable[[Dataset], None],
        without: Sequence[int] = (),
        part_bytes: int = PART_BYTES,
    ) -> None:
        self._part_bytes = part_bytes
        self._closing = ExitStack()
        with ExitStack() as opened:
            self._files = [opened.enter_context(Dataset(path)) for path in paths]
            for data in self._files:
                check(data)
            places = [(data, row) for data in self._files for row in range(len(data))]
            left_out = set(without)
            self._places = [place for n, place in enumerate(places) if n not in left_out]
            if not self._places:
                message = f"{' and '.join(map(str, paths))} hold no complete trajectory to train on"
                raise DataError(message)
            self.parameters = np.stack([data.parameters[row] for data, row in self._places])
            self._closing = opened.pop_all()
        self._ahead: tuple[tuple[int, int], Future[dict[str, NDArray[Any]]]] | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="data")

    def __len__(self) -> int:
        """Number of trajectories, n."""
        return len(self._places)

    def parts(self, number: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Yields a trajectory in parts of consecutive time steps: field name to `(k, *shape)`.

        While a part is in use, the next one, also of the next trajectory, is read.

        Args:
            number: Index of the trajectory, 0 to n - 1.

        Raises:
            DataError: A file is damaged.
        """
        data, _ = self._places[number]
        for first in range(0, data.time_steps, self._steps(data)):
            yield self._take((number, first))

    def inputs(self, number: int) -> dict[str, NDArray[Any]]:
        """Reads the input fields of a trajectory: name to `(*shape)`.

        Args:
            number: Index of the trajectory, 0 to n - 1.

        Raises:
            DataError: A file is damaged.
        """
        data, row = self._places[number]
        return data.read_inputs(row)

    def close(self) -> None:
        """Closes all files."""
        self._reader.shutdown(cancel_futures=True)
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _take(self, place: tuple[int, int]) -> dict[str, NDArray[Any]]:
        """Returns the part at (trajectory, first time step), and begins to read the one that follows."""
        ahead, self._ahead = self._ahead, None
        part = ahead[1].result() if ahead is not None and ahead[0] == place else self._read(place)
        if (following := self._after(place)) is not None:
            self._ahead = (following, self._reader.submit(self._read, following))
        return part

    def _after(self, place: tuple[int, int]) -> tuple[int, int] | None:
        number, first = place
        data, _ = self._places[number]
        if first + self._steps(data) < data.time_steps:
            return number, first + self._steps(data)
        return (number + 1, 0) if number + 1 < len(self) else None

    def _read(self, place: tuple[int, int]) -> dict[str, NDArray[Any]]:
        number, first = place
        data, row = self._places[number]
        return data.read(row, slice(first, first + self._steps(data)))

    def _steps(self, data: Dataset) -> int:
        """Returns the number of time steps of a part."""
        sizes = (math.prod(shape) * dtype.itemsize for shape, dtype in data.fields.values())
        return max(1, self._part_bytes // sum(sizes))

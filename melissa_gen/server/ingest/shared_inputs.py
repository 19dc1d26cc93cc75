"""The input fields of simulations, in the memory that a rank shares with its ingest process."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from melissa_gen.reservoir import ArraySpec, Inputs

__all__ = ["SharedInputs", "input_arrays", "input_row_specs"]

_INPUT = "input."


def input_row_specs(inputs: Mapping[str, ArraySpec], rows: int) -> dict[str, ArraySpec]:
    """Returns shape and dtype of the arrays that hold input fields of several simulations.

    Args:
        inputs: Name of each input field to its shape and dtype.
        rows: Number of simulations.
    """
    return {_INPUT + name: ((rows, *shape), dtype) for name, (shape, dtype) in inputs.items()}


def input_arrays(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Returns those of some arrays that hold input fields, `(rows, *shape)`, by the name of the field."""
    found = {name.removeprefix(_INPUT): a for name, a in arrays.items() if name.startswith(_INPUT)}
    return found


class SharedInputs:
    """Gives each simulation of a draw a row that holds its input fields; the ingest process alone writes them.

    All samples of a simulation have the same input fields. They are therefore copied once, and not with each draw. The
    row belongs to the simulation until another one needs it: that of the simulation that was drawn longest ago.

    Args:
        arrays: Name of each input field to an array `(rows, *shape)`.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._arrays = arrays
        self._free = list(range(min(map(len, arrays.values()), default=0)))
        # The row of each simulation, in the order of the last draw.
        self._rows: OrderedDict[int, int] = OrderedDict()

    def place(self, drawn: Mapping[int, Inputs]) -> dict[int, int]:
        """Returns the row of each simulation of a draw; rows of earlier draws may be overwritten.

        Args:
            drawn: Number of each simulation to its input fields.

        Raises:
            ValueError: There are fewer rows than simulations.
        """
        if len(drawn) > len(self._free) + len(self._rows):
            message = f"a draw of {len(drawn)} simulations needs more rows for input fields"
            raise ValueError(message)
        for simulation in drawn.keys() & self._rows.keys():
            self._rows.move_to_end(simulation)
        for simulation in drawn.keys() - self._rows.keys():
            row = self._free.pop() if self._free else self._rows.popitem(last=False)[1]
            for name, values in drawn[simulation].items():
                self._arrays[name][row] = values
            self._rows[simulation] = row
        return {simulation: self._rows[simulation] for simulation in drawn}

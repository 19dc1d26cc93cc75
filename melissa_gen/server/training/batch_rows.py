"""The rows on which a rank runs its network: the current batch, filled up with rows of earlier batches."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from melissa_gen.reservoir import Batch, FieldSpec, Source

__all__ = ["BatchRows"]


class BatchRows:
    """Fields and inputs of the rows on which a rank runs its network.

    Networks that normalize over the batch need several real rows. A batch is therefore filled up with rows of
    earlier batches, which have the weight 0 in the loss. A rank whose data has ended runs on such rows alone.

    Args:
        arrays: Field to an array of rows `(..., *shape)`, of the reservoir's slots.
        size: Rows of a full batch.
        inputs: Number of inputs: the parameters and the time.
        steps: Time steps of a row.
        input_specs: Input field to (shape, dtype), for a task that takes input fields.
        pin: Whether the fields are in pinned memory, for copies to a GPU.

    Attributes:
        fields: Field or input field to the rows, of which the first are those of the last batch: `(size, *shape)`, or
            `(size, steps, *shape)` for several steps; input fields always `(size, *shape)`.
        filled: Number of rows that hold data.
    """

    def __init__(
        self,
        arrays: Mapping[str, npt.NDArray[np.generic]],
        size: int,
        inputs: int,
        steps: int = 1,
        *,
        input_specs: Mapping[str, FieldSpec] | None = None,
        pin: bool,
    ) -> None:
        several = (steps,) if steps > 1 else ()
        self.fields = {
            name: torch.empty(
                (size, *several, *array.shape[1:]),
                dtype=torch.from_numpy(array[:0]).dtype,
                pin_memory=pin,
            )
            for name, array in arrays.items()
        }
        for name, (shape, dtype) in (input_specs or {}).items():
            kind = torch.from_numpy(np.empty(0, dtype)).dtype
            self.fields[name] = torch.empty((size, *shape), dtype=kind, pin_memory=pin)
        self._views = {name: tensor.numpy() for name, tensor in self.fields.items()}
        self._inputs = np.zeros((size, *several, inputs))
        self._size = size
        self.filled = 0

    @property
    def inputs(self) -> npt.NDArray[np.float64]:
        """The inputs `(filled, inputs)` of the rows: parameters and time, in physical units."""
        return self._inputs[: self.filled]

    def draw(self, reservoir: Source, count: int) -> Batch | None:
        """Draws samples from the reservoir into the first rows; None if it is empty."""
        batch = reservoir.draw(count, self._views, below_watermark=True)
        if batch is None:
            return None
        self._inputs[: batch.count] = batch.inputs
        self.filled = max(self.filled, batch.count)
        if self.filled == 1 < self._size:
            # The first batch of all has one row, which a network that normalizes over the batch does not accept.
            self._inputs[1] = self._inputs[0]
            for tensor in self.fields.values():
                tensor[1] = tensor[0]
            self.filled = 2
        return batch

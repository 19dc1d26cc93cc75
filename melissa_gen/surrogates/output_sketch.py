"""Sketches of predicted fields: linear combinations whose mean square estimates that of the field."""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from melissa_gen.surrogates.direct_surrogate import Surrogate

__all__ = ["Sketch", "Sketched"]

# If there are more values than this, they are combined into this many sums with random signs.
_SUMS = 64

Entries = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
"""Row, column and value of each entry of a sparse matrix. Repeated entries are added."""


class Sketch:
    """Linear map from the standardized output to a short vector with (nearly) the same mean squares.

    The first part of the sketch represents the values of the output, the second part the differences
    of neighboring values along the axes of the fields, divided by the grid spacing of an axis of
    length 1. The mean square of each part equals that of the values or differences that it
    represents. This is exact for at most 64 of them. More are combined into 64 sums with fixed
    random signs: the mean square is then unbiased over the signs, with a relative standard error of
    about one sixth, and similar fields have similar errors.

    Reference: Charikar, Chen and Farach-Colton, "Finding frequent items in data streams", 2002
    (count sketch).

    Args:
        surrogate: Defines the layout of the output.

    Attributes:
        values: Length of the first part.
        length: Length of both parts together.
        matrix: Sparse matrix that maps a flattened output to its sketch, `(length, size)`, float32.
    """

    def __init__(self, surrogate: Surrogate) -> None:
        generator = np.random.default_rng(0)
        size = math.prod(surrogate.output_shape)
        self.values, values = _count_sketch(_values(size), size, generator)
        others, differences = _count_sketch(*_differences(surrogate), generator)
        self.length = self.values + others
        rows, columns, entries = (
            np.concatenate(pair) for pair in zip(values, differences, strict=True)
        )
        rows[len(values[0]) :] += self.values
        self.matrix = torch.sparse_coo_tensor(
            torch.from_numpy(np.stack([rows, columns])),
            torch.from_numpy(entries.astype(np.float32)),
            (self.length, size),
            device=surrogate.center.device,
            check_invariants=True,
        ).coalesce()

    def __call__(self, output: torch.Tensor) -> torch.Tensor:
        """Computes the sketches `(n, length)` of flattened outputs `(n, size)`."""
        sketches: torch.Tensor = torch.sparse.mm(self.matrix, output.T)
        return sketches.T


class Sketched:
    """A surrogate that returns the sketches of its members' outputs.

    If the network has the attributes `trunk` and `head`, as `MLP` has, and `head` is a linear layer,
    the sketch is folded into the head and the whole field is never computed. For any other network
    the whole output is computed and then sketched.

    Args:
        surrogate: Surrogate in evaluation mode. Its weights must not change afterwards.
        sketch: Sketch for the same output layout.

    Attributes:
        folded: Whether the sketch is folded into the heads of all networks.
        width: Number of values per input that are in memory at once.
        scale: Centers and widths of the surrogate's output scale, `(2, K)`.
    """

    def __init__(self, surrogate: Surrogate, sketch: Sketch) -> None:
        self._sketch = sketch
        members = surrogate.ensemble[1] if surrogate.ensemble else 1
        self.scale = torch.stack([surrogate.output_mean, surrogate.output_std])
        networks = surrogate.networks()
        # A correction of the output is not part of the head.
        folded = [None if surrogate.corrected else _fold_head(n, sketch) for n in networks]
        self._folded = [one for one in folded if one is not None]
        # Keep no reference to the surrogate if all heads are folded: the heads may be most of its memory.
        self._scaling = surrogate.scaling()
        self._unfolded = surrogate if len(self._folded) < len(folded) else None
        self.folded = self._unfolded is None
        self.width = members * sketch.matrix.shape[0 if self.folded else 1]

    def __call__(self, parameters: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Computes the sketches `(n, M, length)`, float32, for parameters `(n, d)` and times `(n,)`."""
        length = self._sketch.length
        if self._unfolded is not None:
            output = self._unfolded.member_outputs(parameters, time).flatten(2).float()
            n, members, size = output.shape
            return self._sketch(output.reshape(n * members, size)).reshape(n, members, length)
        inputs = self._scaling(parameters, time)
        folded = torch.cat([one(inputs) for one in self._folded], dim=1)
        return folded.reshape(len(inputs), folded.shape[1] // length, length)


def _fold_head(
    network: torch.nn.Module, sketch: Sketch
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Returns the network with the sketch folded into its head, or None without a linear head.

    The returned function maps `(n, n_inputs)` to `(n, M length)`.
    """
    head, trunk = getattr(network, "head", None), getattr(network, "trunk", None)
    if not isinstance(head, torch.nn.Linear) or not isinstance(trunk, torch.nn.Module):
        return None
    # Composing the sketch with a linear head: apply the sketch to the columns of its weights and its bias.
    size = sketch.matrix.shape[1]
    members = [
        torch.sparse.mm(sketch.matrix, part)
        for part in torch.split(head.weight.detach().float(), size)
    ]
    weight = torch.cat(members).T
    if head.bias is None:
        return lambda inputs: trunk(inputs).float() @ weight
    bias = sketch(head.bias.detach().float().reshape(-1, size)).flatten()
    return lambda inputs: trunk(inputs).float() @ weight + bias


def _values(size: int) -> Entries:
    """Returns the identity matrix: the values of the output."""
    places = np.arange(size)
    return places, places, np.ones(size)


def _differences(surrogate: Surrogate) -> tuple[Entries, int]:
    """Returns the matrix of differences along all axes of all fields, and its number of rows."""
    found: list[Entries] = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    first = count = 0
    for shape in surrogate.fields.values():
        places = first + np.arange(math.prod(shape)).reshape(shape)
        first += places.size
        for axis, length in enumerate(shape):
            lower, upper = np.delete(places, -1, axis).ravel(), np.delete(places, 0, axis).ravel()
            rows = count + np.arange(lower.size)
            count += lower.size
            for columns, value in ((upper, length), (lower, -length)):
                found.append((rows, columns, np.full(lower.size, float(value))))
    rows, columns, entries = (np.concatenate(column) for column in zip(*found, strict=True))
    return (rows, columns, entries), count


def _count_sketch(
    entries: Entries, count: int, generator: np.random.Generator
) -> tuple[int, Entries]:
    """Reduces a matrix of `count` rows to at most 64 rows by sums with random signs.

    Returns:
        The number of rows, and the entries.
    """
    if count <= _SUMS:
        return count, entries
    rows, columns, values = entries
    scale = math.sqrt(_SUMS / count)
    into, signs = (
        generator.integers(_SUMS, size=count),
        generator.choice([-scale, scale], size=count),
    )
    return _SUMS, (into[rows], columns, values * signs[rows])

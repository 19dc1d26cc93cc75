"""A few linear combinations of a predicted field, from which its mean squares are known without the field."""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from melissa_gen.surrogates.direct_surrogate import Surrogate

__all__ = ["Sketch", "Sketched"]

# More values than this are added up, with random signs, into so many sums.
_SUMS = 64

Entries = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
"""Row, column and value of a sparse matrix's entries; those of one place add up."""


class Sketch:
    """What is asked of the standardised output: its values, then its differences along the fields' axes.

    The mean square of the first part is that of the output; that of the second is the mean square
    of all differences per length of the axis. Both are exact where there are at most 64 of them.
    More are added up with random signs in 64 sums, always the same: the mean square is then right
    on average over the signs, with a standard error of about a sixth, alike for like fields.

    Reference: Charikar, Chen and Farach-Colton, "Finding frequent items in data streams", 2002, for
    the sums.

    Args:
        surrogate: Gives the layout of the output.

    Attributes:
        values: Length of the first part.
        length: Length of both.
        matrix: Takes a flattened output to its sketch: (length, size), sparse, float32.
    """

    def __init__(self, surrogate: Surrogate) -> None:
        generator = np.random.default_rng(0)
        size = math.prod(surrogate.output_shape)
        self.values, values = _summed(_values(size), size, generator)
        others, differences = _summed(*_differences(surrogate), generator)
        self.length = self.values + others
        rows, columns, entries = (
            np.concatenate(pair) for pair in zip(values, differences, strict=True)
        )
        rows[len(values[0]) :] += self.values
        self.matrix = torch.sparse_coo_tensor(
            torch.from_numpy(np.stack([rows, columns])),
            torch.from_numpy(entries.astype(np.float32)),
            (self.length, size),
            device=surrogate.centre.device,
            check_invariants=True,
        ).coalesce()

    def __call__(self, output: torch.Tensor) -> torch.Tensor:
        """Sketches flattened outputs: (n, size) to (n, length)."""
        sketches: torch.Tensor = torch.sparse.mm(self.matrix, output.T)
        return sketches.T


class Sketched:
    """A surrogate whose members answer with the sketch of their outputs.

    A network that ends in a linear layer, and says so by its attributes `trunk` and `head` as `MLP`
    does, never makes the field: the sketch of the head's weights is its new head. Any other network
    is asked for its whole output, which is then sketched.

    Args:
        surrogate: In evaluation mode; its weights must not change any more.
        sketch: Of the same layout.

    Attributes:
        width: Values per input that are held at once.
    """

    def __init__(self, surrogate: Surrogate, sketch: Sketch) -> None:
        self._sketch = sketch
        members = surrogate.ensemble[1] if surrogate.ensemble else 1
        answers = [_answer(network, sketch) for network in surrogate.networks()]
        self._answers = [answer for answer in answers if answer is not None]
        # What is not needed is not kept: the head may be most of the network.
        self._scaling = surrogate.scaling()
        self._whole = surrogate if len(self._answers) < len(answers) else None
        self.width = members * sketch.matrix.shape[0 if self._whole is None else 1]

    def __call__(self, parameters: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Asks M members at parameters (n, d) and times (n,): (n, M, length), single precision."""
        length = self._sketch.length
        if self._whole is not None:
            output = self._whole.member_outputs(parameters, time).flatten(2).float()
            n, members, size = output.shape
            return self._sketch(output.reshape(n * members, size)).reshape(n, members, length)
        inputs = self._scaling(parameters, time)
        answers = torch.cat([answer(inputs) for answer in self._answers], dim=1)
        return answers.reshape(len(inputs), answers.shape[1] // length, length)


def _answer(
    network: torch.nn.Module, sketch: Sketch
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """The network with a sketch for its head, (n, n_inputs) to (n, M length); None where there is no such head."""
    head, trunk = getattr(network, "head", None), getattr(network, "trunk", None)
    if not isinstance(head, torch.nn.Linear) or not isinstance(trunk, torch.nn.Module):
        return None
    # A linear map of the outputs is the same map of each input's column of weights, and of the bias.
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
    """The output itself."""
    places = np.arange(size)
    return places, places, np.ones(size)


def _differences(surrogate: Surrogate) -> tuple[Entries, int]:
    """Differences along all axes of all fields, per length of the axis, and their number."""
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


def _summed(entries: Entries, count: int, generator: np.random.Generator) -> tuple[int, Entries]:
    """The rows (count of them) of a matrix as they are if they are few, else added up in sums; their number first."""
    if count <= _SUMS:
        return count, entries
    rows, columns, values = entries
    scale = math.sqrt(_SUMS / count)
    into, signs = (
        generator.integers(_SUMS, size=count),
        generator.choice([-scale, scale], size=count),
    )
    return _SUMS, (into[rows], columns, values * signs[rows])

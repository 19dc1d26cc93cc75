"""The scale of the increments of an autoregressive surrogate, adapted when they outgrow it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from melissa_gen.surrogates import AutoregressiveSurrogate, Rescaling

__all__ = ["IncrementScale"]

_DRIFT = 2.0
"""Factor between the measured scale and that in use, from which on the scale is adapted, as for that of the fields."""


class IncrementScale:
    """Follows the scale of the increments as that of the fields follows the stream.

    Its sums are in units of the scale in use, so that they stay right when the scale of the fields is adapted, with
    which that of the increments is converted. Fields at rest keep the scale in use.
    """

    def __init__(self) -> None:
        # Sum of the squares of the increments, and their number: of all ranks when they were last merged, and of this
        # rank since then.
        self._merged, self._recent = [0.0, 0.0], [0.0, 0.0]

    def start(self, surrogate: AutoregressiveSurrogate, states: torch.Tensor) -> None:
        """Sets the first scale from the first batch of all ranks (collective).

        Args:
            surrogate: The surrogate.
            states: Two consecutive steps of each row, standardized, `(n, 2, *output_shape)`; n is 0 on a rank without
                data.
        """
        squares, count = _reduced(_sums(surrogate, states), states)
        if squares > 0:
            surrogate.increment.mul_(math.sqrt(squares / count))

    def add(self, surrogate: AutoregressiveSurrogate, states: torch.Tensor) -> None:
        """Measures a batch of this rank; the arguments are those of `start`."""
        for place, value in enumerate(_sums(surrogate, states)):
            self._recent[place] += value

    @property
    def drifted(self) -> bool:
        """Whether the scale in use does not fit the increments that this rank knows of."""
        return _drifted([one + two for one, two in zip(self._merged, self._recent, strict=True)])

    def adapt(self, surrogates: Sequence[AutoregressiveSurrogate]) -> Rescaling | None:
        """Merges the sums of all ranks, and sets the scale if it does not fit (collective).

        Args:
            surrogates: The surrogate in training, and others that have the same scale.

        Returns:
            What that means for the optimizer of the first; None if nothing was changed.
        """
        found = _reduced(self._recent, surrogates[0].increment)
        self._merged = [one + two for one, two in zip(self._merged, found, strict=True)]
        self._recent = [0.0, 0.0]
        if not _drifted(self._merged):
            return None
        square = self._merged[0] / self._merged[1]
        self._merged[0] = self._merged[1]
        rescalings = [one.rescale_increment(math.sqrt(square)) for one in surrogates]
        return rescalings[0]

    def forget(self) -> None:
        """Begins again, because an earlier scale was restored."""
        self._merged, self._recent = [0.0, 0.0], [0.0, 0.0]

    def state(self) -> dict[str, Any]:
        """Returns what `restore` needs, of JSON types."""
        return {"merged": self._merged, "recent": self._recent}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from the `state()` of an earlier server."""
        self._merged, self._recent = list(state["merged"]), list(state["recent"])


def _sums(surrogate: AutoregressiveSurrogate, states: torch.Tensor) -> list[float]:
    """Returns the sum of the squares of the increments in units of their scale, and their number."""
    change = (states[:, 1] - states[:, 0]).double().div_(surrogate.increment)
    return [float(change.square_().sum()), float(change.numel())]


def _reduced(sums: Sequence[float], like: torch.Tensor) -> list[float]:
    """Returns the sums over all ranks, exchanged on the device of a tensor (collective)."""
    found = torch.tensor(sums, dtype=torch.float64, device=like.device)
    if dist.is_initialized():
        dist.all_reduce(found)
    result: list[float] = found.tolist()
    return result


def _drifted(sums: Sequence[float]) -> bool:
    squares, count = sums
    return squares > 0 and not _DRIFT**-2 <= squares / count <= _DRIFT**2

"""What a surrogate says of parameters that nobody has simulated: features for the sampler."""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from melissa_gen.surrogates.direct_surrogate import Surrogate
from melissa_gen.surrogates.output_sketch import Sketch, Sketched

__all__ = ["FEATURES", "SurrogateProbe"]

Array = NDArray[np.float64]

FEATURES = ("novelty", "disagreement", "magnitude", "gradient_space", "gradient_time")

# Output values held at once, and what stands for the logarithm of nothing.
_CHUNK = 250_000
_FLOOR = 1e-6
# The ridge of the novelty, in samples.
_RIDGE = 0.1


class SurrogateProbe:
    """Features of a surrogate's prediction over a few times, all logarithms of root mean squares.

    - `novelty`: how far the prediction lies from the span of the predictions at the points `seen`,
      sqrt(φ (ΦᵀΦ + ridge)⁻¹ φ) with φ the output and Φ the outputs at the points seen: up to the
      noise the standard deviation of a Bayesian linear last layer (its leverage); a constant while
      nothing is seen;
    - `disagreement`: deviation of the members from their mean; constant with one member;
    - `magnitude`: the standardised prediction itself;
    - `gradient_space`: its differences along each field's axes, per length of the axis;
    - `gradient_time`: its differences from one of the times to the next, per whole duration.

    The prediction is that of the last surrogate given; the others serve the disagreement alone, in
    which each member of an ensemble counts. Nothing here is trained, and what is given must not change any more.

    All but the novelty are means of squares, and of a field of more than 64 values they are estimated from 64 random
    sums (`sketch`), of which the novelty is taken too: a network that ends in a linear layer never makes the field.

    Args:
        surrogates: Of one output shape: snapshots of one training or trained apart, newest last.
        times: Times asked, evenly spaced from the first to the last; at least 1.
        seen: Physical points (m, d) that have been simulated.

    Raises:
        ValueError: No surrogate, or no time.

    Example:
        >>> surrogate = Surrogate({"viscosity": (0.1, 1.0)}, (0, 2), {"velocity": (64,)})
        >>> SurrogateProbe([surrogate]).features(np.array([[0.5], [0.7]])).shape
        (2, 5)
    """

    names = FEATURES

    def __init__(
        self, surrogates: Sequence[Surrogate], times: int = 3, seen: Array | None = None
    ) -> None:
        if not surrogates or times < 1:
            msg = f"{len(surrogates)} surrogates and {times} times, 1 or more of both are needed"
            raise ValueError(msg)
        newest = surrogates[-1]
        self._device = newest.centre.device
        self._times = torch.linspace(*newest.times, times, dtype=torch.float64, device=self._device)
        self._sketch = Sketch(newest)
        self._values = self._sketch.values
        self._asked = [self._sketched_of(surrogate) for surrogate in surrogates]
        self._whitening: torch.Tensor | None = None
        if seen is not None and len(seen) > 0:
            self._whitening = self._learned_whitening(seen)

    def with_newer(self, surrogate: Surrogate, members: int) -> "SurrogateProbe":
        """With one surrogate more, the oldest given up beyond so many; of what was seen nothing is known."""
        told = copy.copy(self)
        told._asked = [*self._asked, told._sketched_of(surrogate)][-members:]
        told._whitening = None
        return told

    def with_seen(self, points: Array) -> "SurrogateProbe":
        """The same surrogates, with these points (m, d) as those that have been simulated."""
        told = copy.copy(self)
        told._whitening = self._learned_whitening(points) if len(points) > 0 else None
        return told

    def features(self, points: Array) -> Array:
        """Features (n, 5) of physical points (n, d)."""
        with torch.no_grad():
            found: Array = self._all_features(self._inputs(points)).cpu().numpy()
        return found

    def features_and_pullback(self, points: Array) -> tuple[Array, Callable[[Array], Array]]:
        """The features, and the function from slopes with respect to them to slopes (n, d)."""
        inputs = self._inputs(points).requires_grad_()
        with torch.enable_grad():
            found = self._all_features(inputs)

        def pullback(slope: Array) -> Array:
            given = torch.from_numpy(np.array(slope, np.float64)).to(self._device)
            (back,) = torch.autograd.grad(found, inputs, given, retain_graph=True)
            result: Array = back.cpu().numpy()
            return result

        return found.detach().cpu().numpy(), pullback

    def _inputs(self, points: Array) -> torch.Tensor:
        return torch.from_numpy(np.array(points, np.float64)).to(self._device)

    def _all_features(self, points: torch.Tensor) -> torch.Tensor:
        return torch.cat([self._features(part) for part in torch.split(points, self._rows)])

    def _features(self, points: torch.Tensor) -> torch.Tensor:
        """Features (n, 5) of points (n, d), double precision."""
        n, times = len(points), len(self._times)
        by_surrogate = [self._sketched(asked, points) for asked in self._asked]
        members, newest = torch.cat(by_surrogate, dim=1), by_surrogate[-1].mean(dim=1)
        values, differences = newest[:, : self._values], newest[:, self._values :]
        squares = (members - members.mean(dim=1, keepdim=True))[:, :, : self._values].square()
        variance = squares.sum(dim=1) / max(members.shape[1] - 1, 1)
        series = values.reshape(n, times, self._values)
        steps = (series[:, 1:] - series[:, :-1]) * max(times - 1, 1)
        found = [
            self._novelty(values, n),
            _log_root_mean(variance.reshape(series.shape)),
            _log_root_mean(series.square()),
            _log_root_mean(differences.reshape(n, times * differences.shape[1]).square()),
            _log_root_mean(steps.square()),
        ]
        return torch.stack(found, dim=1).double()

    def _sketched_of(self, surrogate: Surrogate) -> Sketched:
        return Sketched(surrogate.eval().requires_grad_(requires_grad=False), self._sketch)

    @property
    def _rows(self) -> int:
        """Points asked at once."""
        return max(1, _CHUNK // (len(self._times) * max(one.width for one in self._asked)))

    def _sketched(self, asked: Sketched, points: torch.Tensor) -> torch.Tensor:
        """The sketch of all members (n times, M, k) at n points and each of the times."""
        times = self._times.repeat(len(points))
        return asked(points.repeat_interleave(len(self._times), dim=0), times)

    def _novelty(self, values: torch.Tensor, n: int) -> torch.Tensor:
        """Log of the root of the mean leverage over the times: (n,)."""
        if self._whitening is None:
            return values.new_zeros(n)
        return _log_root_mean(
            (_with_constant(values) @ self._whitening).square().sum(1).view(n, -1)
        )

    def _learned_whitening(self, seen: Array) -> torch.Tensor:
        """W with W Wᵀ = (ΦᵀΦ + ridge)⁻¹, Φ the sketch and a constant at all times of the points seen."""
        size = 1 + self._values
        gram = torch.zeros(size, size, dtype=torch.float64, device=self._device)
        with torch.no_grad():
            for part in torch.split(self._inputs(seen), self._rows):
                newest = self._sketched(self._asked[-1], part).mean(dim=1)
                rows = _with_constant(newest[:, : self._values]).double()
                gram += rows.T @ rows
            identity = torch.eye(size, dtype=torch.float64, device=self._device)
            root = torch.linalg.cholesky(gram + _RIDGE * identity)
            whitening: torch.Tensor = torch.linalg.solve_triangular(root, identity, upper=False)
        return whitening.T.float()


def _with_constant(rows: torch.Tensor) -> torch.Tensor:
    return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)


def _log_root_mean(squares: torch.Tensor) -> torch.Tensor:
    """Half the log of the mean of all but the first axis of (n, ...), a constant if empty: (n,)."""
    flat = squares.flatten(1)
    if flat.shape[1] == 0:
        return flat.new_zeros(len(flat))
    return 0.5 * torch.log(flat.mean(dim=1) + _FLOOR**2)

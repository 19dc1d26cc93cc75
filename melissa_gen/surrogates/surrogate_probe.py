"""Features of a surrogate's predictions at parameters that have not been simulated, for samplers."""

import copy
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from melissa_gen.errors import DataError
from melissa_gen.surrogates.direct_surrogate import Surrogate
from melissa_gen.surrogates.losses import LEAST_SHARE
from melissa_gen.surrogates.output_sketch import Sketch, Sketched
from melissa_gen.surrogates.point_surrogate import PointSurrogate

__all__ = ["FEATURES", "MOST_TIMES", "VALUES_AT_ONCE", "SurrogateProbe"]

Array = NDArray[np.float64]

FEATURES = ("novelty", "disagreement", "magnitude", "gradient_space", "gradient_time")

# Maximum number of output values in memory at once.
VALUES_AT_ONCE = 250_000
# Number of times at which a surrogate is evaluated; the smaller one if that is costly.
MOST_TIMES, _FEW_TIMES = 3, 2
# Of a network whose whole output has to be computed, the number of seen points that are evaluated.
_MOST_SEEN = 256
# Of such a network, the number of points at once: more do not fit into the cache, and took up to 1.7 times as long.
_MOST_ROWS = 32
# Added to a root mean square before the logarithm is taken.
_FLOOR = 1e-6
# Ridge parameter of the novelty, in units of samples.
_RIDGE = 0.1


class SurrogateProbe:
    """Computes features of a surrogate's predictions. All are logarithms of root mean squares.

    - `novelty`: distance of the prediction from the span of the predictions at the points `seen`:
      sqrt(φᵀ (ΦᵀΦ + ridge)⁻¹ φ) with the output φ and the outputs Φ at the seen points. Up to the
      noise level, this is the standard deviation of a Bayesian linear last layer (its leverage).
      Constant if no points are given.
    - `disagreement`: standard deviation over the members; constant with one member.
    - `magnitude`: the standardized prediction.
    - `gradient_space`: differences along the axes of each field, for axes of length 1.
    - `gradient_time`: differences between consecutive times, for a total duration of 1.

    The last surrogate provides the prediction. The others contribute only to the disagreement, in
    which each member of an ensemble counts. No surrogate is trained here, and their weights must
    not change afterwards.

    For a field of more than 64 values the features are estimated from a `Sketch` of 64 random sums,
    so that the whole field need not be computed if the network ends in a linear layer. Of any other
    network evaluations are `costly`.

    Args:
        surrogates: Surrogates with the same output shape, newest last: snapshots of one training,
            or trained independently.
        times: Number of times, evenly spaced from the first to the last; at least 1. None: 3, or 2 if evaluations are
            costly.
        seen: Physical points `(m, d)` that have been simulated.
        values: Output values computed at once, at least for one point; it limits the memory.
        relative: Whether novelty and disagreement are relative to the magnitude of the predicted field, as errors are
            where `training.metric` is `relative`; without effect if a field has a log scale.
        keep_fields: Whether `fields` will be called; it needs the whole network, which may be large.

    Raises:
        ValueError: `surrogates` is empty, or `times` is less than 1.

    Example:
        >>> surrogate = Surrogate({"viscosity": (0.1, 1.0)}, (0, 2), {"velocity": (64,)})
        >>> SurrogateProbe([surrogate]).features(np.array([[0.5], [0.7]])).shape
        (2, 5)
    """

    names = FEATURES

    def __init__(
        self,
        surrogates: Sequence[Surrogate],
        times: int | None = None,
        seen: Array | None = None,
        values: int = VALUES_AT_ONCE,
        *,
        relative: bool = False,
        keep_fields: bool = False,
    ) -> None:
        if not surrogates or (times is not None and times < 1):
            msg = f"{len(surrogates)} surrogates and {times} times, at least 1 of each is required"
            raise ValueError(msg)
        newest = surrogates[-1]
        self._at_once = values
        self._device = newest.center.device
        self._sketch = Sketch(newest)
        logarithmic = any(scale.kind == "log" for scale in newest.scales.values())
        self._relative = relative and not logarithmic
        self._values = self._sketch.values
        self._zero = self._sketch_of_zero(newest)
        self._members = [self._sketch_of(surrogate) for surrogate in surrogates]
        count = times or (_FEW_TIMES if self.costly else MOST_TIMES)
        self._times = torch.linspace(*newest.times, count, dtype=torch.float64, device=self._device)
        self._keep_fields = keep_fields
        self._newest = newest if keep_fields else None
        self._whitening: torch.Tensor | None = None
        if seen is not None and len(seen) > 0:
            self._whitening = self._compute_whitening(seen)

    @property
    def costly(self) -> bool:
        """Whether an evaluation computes the whole field, which costs a third of a training step on one sample."""
        return not all(one.folded for one in self._members)

    def with_newer(self, surrogate: Surrogate, members: int) -> "SurrogateProbe":
        """Returns a probe with one more surrogate, without seen points.

        Surrogates whose output has another scale are dropped: their outputs can't be compared.

        Args:
            surrogate: The new surrogate.
            members: Maximum number of surrogates; the oldest are dropped.
        """
        copied = copy.copy(self)
        added = copied._sketch_of(surrogate)
        alike = [one for one in self._members if torch.equal(one.scale, added.scale)]
        copied._members = [*alike, added][-members:]
        copied._zero = self._sketch_of_zero(surrogate)
        copied._whitening = None
        copied._newest = surrogate if self._keep_fields else None
        return copied

    def with_seen(self, points: Array) -> "SurrogateProbe":
        """Returns a probe with the same surrogates and the simulated points `(m, d)`."""
        copied = copy.copy(self)
        copied._whitening = self._compute_whitening(points) if len(points) > 0 else None
        return copied

    def features(self, points: Array) -> Array:
        """Computes the features `(n, 5)` of physical points `(n, d)`."""
        with torch.no_grad():
            found: Array = self._all_features(self._inputs(points)).cpu().numpy()
        return found

    def fields(self, points: Array) -> dict[str, NDArray[np.float32]]:
        """Predicts the fields at physical points `(n, d)` and all times: name to `(n, T, *shape)`, physical values.

        Raises:
            DataError: The probe was created without `keep_fields`.
        """
        if self._newest is None:
            message = "this probe was created without keep_fields"
            raise DataError(message)
        count, times = len(points), len(self._times)
        found: dict[str, NDArray[np.float32]] = {}
        rows = max(1, self._at_once // (self.field_bytes // (4 * times)))
        inputs = self._inputs(points).repeat_interleave(times, dim=0)
        moments = self._times.repeat(count)
        for first in range(0, max(count * times, 1), rows):
            part = slice(first, first + rows)
            with torch.no_grad():
                answer = self._newest(inputs[part], moments[part])
            named = (
                answer if isinstance(answer, dict) else {next(iter(self._newest.fields)): answer}
            )
            for name, values in named.items():
                if name not in found:
                    found[name] = np.empty((count * times, *values.shape[1:]), np.float32)
                found[name][part] = values.float().cpu().numpy()
        return {
            name: array.reshape(count, times, *array.shape[1:]) for name, array in found.items()
        }

    @property
    def field_bytes(self) -> int:
        """Memory of the fields that `fields` returns for one point."""
        if self._newest is None:
            return 0
        points = self._newest.count if isinstance(self._newest, PointSurrogate) else 1
        values = points * sum(map(math.prod, self._newest.fields.values()))
        return 4 * len(self._times) * values

    def features_and_pullback(self, points: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Computes the features `(n, 5)` and their vector-Jacobian product.

        Args:
            points: Physical points `(n, d)`.

        Returns:
            The features, and a function that maps gradients with respect to the features `(n, 5)`
            to gradients with respect to the points `(n, d)`.
        """
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
        """Computes the features `(n, 5)`, float64, of points `(n, d)`."""
        n, times = len(points), len(self._times)
        by_surrogate = [self._sketched(member, points) for member in self._members]
        members, newest = torch.cat(by_surrogate, dim=1), by_surrogate[-1].mean(dim=1)
        values, differences = newest[:, : self._values], newest[:, self._values :]
        squares = (members - members.mean(dim=1, keepdim=True))[:, :, : self._values].square()
        factor = self._factor(values)
        variance = squares.sum(dim=1) / max(members.shape[1] - 1, 1) * factor.square()
        series = values.reshape(n, times, self._values)
        steps = (series[:, 1:] - series[:, :-1]) * max(times - 1, 1)
        found = [
            self._novelty(values, factor, n),
            _log_root_mean(variance.reshape(series.shape)),
            _log_root_mean(series.square()),
            _log_root_mean(differences.reshape(n, times * differences.shape[1]).square()),
            _log_root_mean(steps.square()),
        ]
        return torch.stack(found, dim=1).double()

    def _sketch_of_zero(self, surrogate: Surrogate) -> torch.Tensor:
        """Returns the sketch of the values of fields that are zero, `(1, k)`."""
        zeros = {
            name: torch.zeros(1, *shape, dtype=torch.float64, device=self._device)
            for name, shape in surrogate.fields.items()
        }
        return self._sketch(surrogate.target(zeros).reshape(1, -1))[:, : self._values]

    def _factor(self, values: torch.Tensor) -> torch.Tensor:
        """Returns what errors are multiplied by at predictions with sketched values `(n, k)`: `(n, 1)`."""
        if not self._relative:
            return values.new_ones(len(values), 1)
        squares = (values - self._zero).square().mean(dim=1, keepdim=True)
        # The usual square: that of the mean of the fields, and their variance, which is 1.
        usual = self._zero.square().mean() + 1.0
        return squares.clamp(min=LEAST_SHARE**2 * usual).rsqrt()

    def _sketch_of(self, surrogate: Surrogate) -> Sketched:
        return Sketched(surrogate.eval().requires_grad_(requires_grad=False), self._sketch)

    @property
    def _rows(self) -> int:
        """Number of points evaluated at once."""
        rows = self._at_once // (len(self._times) * max(one.width for one in self._members))
        return max(1, min(rows, _MOST_ROWS) if self.costly else rows)

    def _sketched(self, member: Sketched, points: torch.Tensor) -> torch.Tensor:
        """Computes the sketches `(n times, M, k)` of all members at n points and all times."""
        times = self._times.repeat(len(points))
        return member(points.repeat_interleave(len(self._times), dim=0), times)

    def _novelty(self, values: torch.Tensor, factor: torch.Tensor, n: int) -> torch.Tensor:
        """Computes the log of the root mean leverage over the times, `(n,)`."""
        if self._whitening is None:
            return values.new_zeros(n)
        return _log_root_mean(
            ((_with_constant(values) * factor) @ self._whitening).square().sum(1).view(n, -1)
        )

    def _compute_whitening(self, seen: Array) -> torch.Tensor:
        """Computes W with W Wᵀ = (ΦᵀΦ + ridge)⁻¹; Φ holds the sketches at all seen points, and a constant.

        If evaluations are costly, ΦᵀΦ is estimated from 256 of the points, evenly spaced in their order.
        """
        size, count = 1 + self._values, len(seen)
        if self.costly and count > _MOST_SEEN:
            seen = seen[np.linspace(0, count - 1, _MOST_SEEN).round().astype(np.int64)]
        gram = torch.zeros(size, size, dtype=torch.float64, device=self._device)
        with torch.no_grad():
            for part in torch.split(self._inputs(seen), self._rows):
                newest = self._sketched(self._members[-1], part).mean(dim=1)
                values = newest[:, : self._values]
                rows = (_with_constant(values) * self._factor(values)).double()
                gram += (count / len(seen)) * (rows.T @ rows)
            if not torch.isfinite(gram).all():
                message = (
                    "the network of the surrogate predicts NaN or infinite values at points that were simulated; check "
                    "the network, or choose a sampler.method that does not use it"
                )
                raise DataError(message)
            identity = torch.eye(size, dtype=torch.float64, device=self._device)
            root = torch.linalg.cholesky(gram + _RIDGE * identity)
            whitening: torch.Tensor = torch.linalg.solve_triangular(root, identity, upper=False)
        return whitening.T.float()


def _with_constant(rows: torch.Tensor) -> torch.Tensor:
    return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)


def _log_root_mean(squares: torch.Tensor) -> torch.Tensor:
    """Computes half the log of the mean over all axes except the first, `(n,)`; 0 if they are empty."""
    flat = squares.flatten(1)
    if flat.shape[1] == 0:
        return flat.new_zeros(len(flat))
    return 0.5 * torch.log(flat.mean(dim=1) + _FLOOR**2)

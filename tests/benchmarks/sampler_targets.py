"""Targets p a in the unit cube with a known distribution: a, exact draws, and a distance to them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial.distance import cdist

from melissa_gen.sampling.acquisition.base_acquisition import Acquisition

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Mixture:
    """A sum of normal bumps of one width, cut off at the faces of the cube."""

    centers: Sequence[Array]
    weights: Sequence[float]
    width: float

    def value_and_gradient(self, unit: Array) -> tuple[Array, Array]:
        apart = unit[:, None, :] - np.stack(self.centers)
        score = np.log(self.weights) - 0.5 * (apart**2).sum(axis=2) / self.width**2
        total = np.logaddexp.reduce(score, axis=1)
        share = np.exp(score - total[:, None])
        return total, -(share[:, :, None] * apart).sum(axis=1) / self.width**2

    def value(self, unit: Array) -> Array:
        return self.value_and_gradient(unit)[0]

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """Exact draws (n, d)."""
        # What lies inside of the cube counts: the cut takes more from a bump at a corner.
        inside = [np.prod([_inside(c, self.width) for c in center]) for center in self.centers]
        mass = np.array(self.weights) * inside
        counts = rng.multinomial(n, mass / mass.sum())
        parts = [
            np.stack([_cut(c, self.width).rvs(m, random_state=rng) for c in center], axis=1)
            for center, m in zip(self.centers, counts, strict=True)
        ]
        return rng.permutation(np.concatenate(parts))

    @property
    def moments(self) -> tuple[float, float] | None:
        """Mean and standard deviation of an axis, where there is one bump alike on all axes."""
        if len(self.centers) > 1:
            return None
        law = _cut(self.centers[0][0], self.width)
        return float(law.mean()), float(law.std())


@dataclass(frozen=True)
class Ridge:
    """Narrow across the diagonal of the first two axes, flat along it and on all others."""

    width: float
    d: int

    def value_and_gradient(self, unit: Array) -> tuple[Array, Array]:
        across = unit[:, 0] - unit[:, 1]
        gradient = np.zeros_like(unit)
        gradient[:, 0] = -across / self.width**2
        gradient[:, 1] = -gradient[:, 0]
        return -0.5 * (across / self.width) ** 2, gradient

    def value(self, unit: Array) -> Array:
        return self.value_and_gradient(unit)[0]

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """Exact draws (n, d), by rejection."""
        found = np.empty((0, self.d))
        while len(found) < n:
            trial = rng.random((8 * n, self.d))
            found = np.concatenate([found, trial[np.log(rng.random(8 * n)) < self.value(trial)]])
        return found[:n]

    moments = None


class Flat:
    """No guidance: the target is the prior."""

    moments = (0.5, float(np.sqrt(1 / 12)))

    def __init__(self, d: int) -> None:
        self.d = d

    def value(self, unit: Array) -> Array:
        return np.zeros(len(unit))

    def value_and_gradient(self, unit: Array) -> tuple[Array, Array]:
        return np.zeros(len(unit)), np.zeros_like(unit)

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        return rng.random((n, self.d))


@dataclass(frozen=True)
class Levels:
    """A constant a on each of some equal cells of the first axis: a category, an integer, a step or a plateau.

    There is no gradient anywhere.
    """

    levels: Sequence[float]
    d: int

    def value(self, unit: Array) -> Array:
        cell = np.minimum((unit[:, 0] * len(self.levels)).astype(int), len(self.levels) - 1)
        return np.log(np.array(self.levels))[cell]

    def value_and_gradient(self, unit: Array) -> tuple[Array, Array]:
        return self.value(unit), np.zeros_like(unit)

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """Exact draws (n, d)."""
        share = np.array(self.levels) / np.sum(self.levels)
        unit = rng.random((n, self.d))
        unit[:, 0] = (rng.choice(len(share), size=n, p=share) + unit[:, 0]) / len(share)
        return unit

    moments = None


@dataclass(frozen=True)
class CurvedRidge:
    """Narrow across the parabola x1 = 0.1 + 3 (x0 - 0.5)^2 of the first two axes."""

    width: float
    d: int

    def value_and_gradient(self, unit: Array) -> tuple[Array, Array]:
        across = unit[:, 1] - 0.1 - 3.0 * (unit[:, 0] - 0.5) ** 2
        gradient = np.zeros_like(unit)
        gradient[:, 1] = -across / self.width**2
        gradient[:, 0] = -6.0 * (unit[:, 0] - 0.5) * gradient[:, 1]
        return -0.5 * (across / self.width) ** 2, gradient

    def value(self, unit: Array) -> Array:
        return self.value_and_gradient(unit)[0]

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """Exact draws (n, d), by rejection."""
        found = np.empty((0, self.d))
        while len(found) < n:
            trial = rng.random((16 * n, self.d))
            found = np.concatenate([found, trial[np.log(rng.random(16 * n)) < self.value(trial)]])
        return found[:n]

    moments = None


Target = Mixture | Ridge | CurvedRidge | Levels | Flat


class Known(Acquisition):
    """The true log a in place of a learned one."""

    def __init__(self, law: Target) -> None:
        self._law = law

    def value(self, unit: Array) -> Array:
        return self._law.value(unit)

    def value_and_gradient(self, unit: Array) -> tuple[Array, Array]:
        return self._law.value_and_gradient(unit)


def bump(d: int, width: float, center: float = 0.6) -> Mixture:
    """One bump, alike on all axes."""
    return Mixture([np.full(d, center)], [1.0], width)


TARGETS: dict[str, tuple[int, Callable[[], Target]]] = {
    "no guidance": (3, lambda: Flat(3)),
    "bump d=1": (1, lambda: bump(1, 0.2)),
    "bump d=2": (2, lambda: bump(2, 0.2)),
    "bump d=5": (5, lambda: bump(5, 0.25)),
    "bump d=20": (20, lambda: bump(20, 0.25)),
    "two modes 3:1": (2, lambda: Mixture([np.full(2, 0.25), np.full(2, 0.75)], [3.0, 1.0], 0.08)),
    "ridge": (3, lambda: Ridge(0.06, 3)),
    "corner": (3, lambda: bump(3, 0.15, center=1.0)),
    "plateau": (3, lambda: Levels([0.02] * 8 + [1.0] + [0.02], 3)),
    "step": (3, lambda: Levels([0.05] * 4 + [1.0], 3)),
    "category": (4, lambda: Levels([0.1, 0.1, 2.0, 0.1], 4)),
    "unequal modes": (
        3,
        lambda: Mixture([np.full(3, 0.2), np.array([0.8, 0.3, 0.7])], [1.0, 4.0], 0.09),
    ),
    "curved ridge": (2, lambda: CurvedRidge(0.04, 2)),
    "corners": (4, lambda: Mixture([np.zeros(4), np.ones(4)], [1.0, 2.0], 0.2)),
}


def mmd(first: Array, second: Array) -> float:
    """Maximum mean discrepancy of two sets of points (n, d), 0 for one law; unbiased but for the cut at 0.

    With a normal kernel as wide as the median distance within the second set. Gretton et al., 2012.
    """
    within = cdist(second, second, "sqeuclidean")
    scale = 2.0 * float(np.median(within[np.triu_indices(len(second), 1)]))

    def mean(squared: Array, same: bool) -> float:
        kernel = np.exp(-squared / scale)
        if not same:
            return float(kernel.mean())
        n = len(kernel)
        return float((kernel.sum() - n) / (n * (n - 1)))

    own, other = mean(cdist(first, first, "sqeuclidean"), True), mean(within, True)
    return float(
        np.sqrt(max(own + other - 2.0 * mean(cdist(first, second, "sqeuclidean"), False), 0.0))
    )


def _cut(center: float, width: float) -> "stats.rv_continuous":
    return stats.truncnorm(-center / width, (1.0 - center) / width, center, width)


def _inside(center: float, width: float) -> float:
    return float(stats.norm.cdf((1.0 - center) / width) - stats.norm.cdf(-center / width))

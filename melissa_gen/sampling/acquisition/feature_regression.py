"""An acquisition from features of the surrogate's prediction, combined by ridge regression.

A regression of past difficulties on λ only describes where the error *was* large. The network provides, for any λ, the
distance of its prediction from all predictions at points that were drawn before (`novelty`, which
`surrogates.surrogate_probe` computes). It is available for points that have not been simulated, at the current state of
training, and without any measured difficulty. Therefore

    log a(λ) = w · features(λ),

with w a ridge regression of log first-pass difficulty on the features that were known when each point was drawn. The
regression is regularized towards w₀, which has the measured slope of novelty (docs/pages/benchmarks/samplers.md) and is
0 for all other features. With few or noisy difficulties, log a depends on novelty alone. If novelty predicts nothing,
its slope becomes 0.

Features require a pass through the network, and samplers evaluate log a often. The features are therefore computed once
per learning, at about a thousand candidates. `pool` draws from the candidates, their mean normalizes the density, and
gradients are those of an interpolation (`kernel_interpolation`) of some of them. If the network has no linear head into
which a sketch of the field is folded, as convolutional networks, a pass costs as much as in training: there are then a
quarter of the candidates.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from melissa_gen.errors import DataError
from melissa_gen.sampling.acquisition.base_acquisition import Acquisition
from melissa_gen.sampling.acquisition.difficulty_ensemble import (
    importance_weights,
    log_difficulty,
    recency_weights,
)
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.acquisition.kernel_interpolation import KernelInterpolant
from melissa_gen.sampling.acquisition.prediction_features import Probe
from melissa_gen.sampling.base import State, part_of

__all__ = ["COSTLY_FACTOR", "FeatureRegression"]

Array = NDArray[np.float64]

_CANDIDATES = ("candidates.unit", "candidates.value")

# Prior slope of log difficulty (a squared error) with respect to log novelty, and the number of records that it is
# equivalent to. The prior slopes of the other features are 0. First-pass losses are noisy, and they underestimate
# differences, because the network has already learned from other samples of the same simulation. With a weaker prior a
# third of the gain was lost.
_PRIOR_SLOPE = {"novelty": 3.0}
_PRIOR_RECORDS = 200.0
_OTHERS_RECORDS = 1000.0
# Number of candidates that are interpolated, and number of candidates at which gradients are computed for it.
_INTERPOLATED = 400
_SLOPES_AT = 64
# If evaluations of the network are costly, these numbers and that of the candidates are divided by this.
COSTLY_FACTOR = 4


class FeatureRegression(Acquisition):
    """Log a as a linear function of features of the surrogate.

    Args:
        blind: Acquisition learned from λ and difficulties alone, used until a probe is available.
        prior_draws: Function that draws n points (n, k) of the prior in the unit cube.
        candidates: Number of points at which features are computed at each learning.
        half_life: Number of records after which the weight of a record in the regression is halved.
    """

    def __init__(
        self,
        blind: Acquisition,
        prior_draws: Callable[[int, np.random.Generator], Array],
        candidates: int = 1024,
        half_life: float = 200.0,
    ) -> None:
        self._blind = blind
        self._prior_draws = prior_draws
        self._count = candidates
        self._half_life = half_life
        # The newest surrogate, and the one that was used at the last learning.
        self._newest_probe: Probe | None = None
        self._probe: Probe | None = None
        self._uses_features = False
        self._candidates: tuple[Array, Array] | None = None
        self._known = KernelInterpolant()
        self._slopes: dict[str, float] = {}

    @property
    def flat(self) -> bool:
        """Whether log a is constant."""
        return not self._known.fitted if self._uses_features else self._blind.flat

    @property
    def candidates(self) -> tuple[Array, Array] | None:
        """Draws of the prior at which log a is already known, or None."""
        return self._candidates

    @property
    def uses_surrogate(self) -> bool:
        """True: the features come from the surrogate."""
        return True

    @property
    def costly(self) -> bool:
        """Whether evaluations of the surrogate are costly."""
        return self._probe is not None and self._probe.costly

    def observe(self, probe: Probe) -> None:
        """Gives the acquisition a snapshot of the surrogate, evaluated at points of the unit cube."""
        self._newest_probe = probe
        if self._probe is None:
            self._probe = probe

    def fit(self, table: EvidenceTable, rng: np.random.Generator) -> None:
        """Computes features of the newest surrogate, and fits their slopes to all difficulties."""
        self._probe = probe = self._newest_probe
        self._uses_features = probe is not None and table.unit.shape[1] > 0
        if probe is None or not self._uses_features:
            self._blind.fit(table, rng)
            return
        fewer = COSTLY_FACTOR if probe.costly else 1
        unit, slopes_at = self._prior_draws(self._count // fewer, rng), _SLOPES_AT // fewer
        features = probe.features(unit)
        _check_finite(probe.names, features)
        slopes = self._regression(probe.names, features, table)
        values = features @ slopes
        _, pullback = probe.features_and_pullback(unit[:slopes_at])
        gradient = pullback(np.broadcast_to(slopes, (slopes_at, len(slopes))))
        _check_finite(["gradient"] * gradient.shape[1], gradient)
        self._known.fit(unit[:_INTERPOLATED], values[:_INTERPOLATED], gradient)
        self._candidates = unit, values
        self._slopes = dict(zip(probe.names, slopes.tolist(), strict=True))

    def value(self, unit: Array) -> Array:
        """Returns log a (n,) at points (n, k) of the unit cube."""
        if not self._uses_features:
            return self._blind.value(unit)
        if self._probe is None:
            return self._known.value(unit)
        slopes = np.array([self._slopes.get(name, 0.0) for name in self._probe.names])
        return np.asarray(self._probe.features(unit) @ slopes)

    def value_and_gradient(self, unit: Array) -> tuple[Array, Array]:
        """Returns log a (n,) and its gradient (n, k) at points (n, k) of the unit cube."""
        if self._uses_features:
            return self._known.value_and_gradient(unit)
        return self._blind.value_and_gradient(unit)

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        return {
            "asked": self._uses_features,
            **(
                {}
                if self._candidates is None
                else dict(zip(_CANDIDATES, self._candidates, strict=True))
            ),
            "slopes": dict(self._slopes),
            **{f"known.{key}": value for key, value in self._known.state().items()},
            **{f"blind.{key}": value for key, value in self._blind.state().items()},
        }

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self._uses_features, self._slopes = state["asked"], dict(state["slopes"])
        self._probe = self._newest_probe = self._candidates = None
        if _CANDIDATES[0] in state:
            self._candidates = np.array(state[_CANDIDATES[0]]), np.array(state[_CANDIDATES[1]])
        self._known.restore(part_of(state, "known."))
        self._blind.restore(part_of(state, "blind."))

    def diagnostics(self) -> dict[str, float]:
        """Returns the slope of each feature, and the share of the variance of log a that the interpolation explains."""
        if not self._uses_features:
            return self._blind.diagnostics()
        slopes = {f"slope_{name}": slope for name, slope in self._slopes.items()}
        return {"interpolated": self._known.explained, **slopes}

    def _regression(self, names: tuple[str, ...], features: Array, table: EvidenceTable) -> Array:
        """Returns the slopes (j,) of log difficulty, by ridge regression towards the prior slopes.

        Args:
            names: Names of the j features.
            features: (n, j), at points of the prior; their standard deviations scale the ridge.
            table: The history.
        """
        prior = np.array([_PRIOR_SLOPE.get(name, 0.0) for name in names])
        spread = features.std(axis=0)
        varies = spread > 1e-9
        table = table.usable()
        known = table.predicted[:, 1:]
        if known.shape[1] != len(names):
            return prior
        rows = np.asarray(np.isfinite(known).all(axis=1))
        table, known = table.rows(rows), known[rows]
        if len(table) < 2:
            return prior
        target = log_difficulty(table.difficulty)
        weight = recency_weights(len(table), self._half_life) * importance_weights(table.log_ratio)
        share = weight / weight.sum()
        known = np.where(varies, (known - share @ known) / np.where(varies, spread, 1.0), 0.0)
        residual = target - share @ target - known @ (prior * spread)
        strength = np.where(prior > 0.0, _PRIOR_RECORDS, _OTHERS_RECORDS)
        normal = (known * weight[:, None]).T @ known + np.diag(strength)
        change = np.linalg.solve(normal, (known * weight[:, None]).T @ residual)
        slopes: Array = prior + np.where(varies, change / np.where(varies, spread, 1.0), 0.0)
        # A negative slope of novelty would be a coincidence: errors do not decrease with novelty.
        return np.where(prior > 0.0, np.maximum(slopes, 0.0), slopes)


def _check_finite(names: Sequence[str], values: Array) -> None:
    """Checks features, or their gradients, `(n, j)` of the surrogate.

    Raises:
        DataError: Some are NaN or infinite.
    """
    finite = np.isfinite(values)
    if finite.all():
        return
    wrong = sorted({name for name, column in zip(names, finite.T, strict=True) if not column.all()})
    count = int((~finite.all(axis=1)).sum())
    message = (
        f"the network of the surrogate predicts NaN or infinite values at {count} of {len(values)} points "
        f"({', '.join(wrong)}); check the network, or choose a sampler.method that does not use it"
    )
    raise DataError(message)

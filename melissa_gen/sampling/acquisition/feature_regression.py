"""An acquisition from features of the surrogate's prediction, combined by ridge regression.

A regression of past difficulties on λ only describes where the error *was* large. The network gives for any λ
the distance of its prediction from everything that it was trained on (`novelty`, see `surrogates.probe`).
This works for points that have not been simulated, at the present state of training, and without any measured
difficulty. Therefore

    log a(λ) = w · features(λ),

with w a ridge regression of log first-pass difficulty on the features that were known when each point was drawn. It is
drawn towards w₀, which has the slope that novelty was measured to have (tests/benchmarks/SAMPLERS.md) and nothing else:
with few or noisy difficulties log a is novelty alone, and where novelty predicts nothing the slope vanishes.

Features cost a pass through the network, and samplers ask often. They are therefore taken once per learning, at a
thousand candidates, which serve every purpose: `pool` draws from them, the density's normalization is their mean, and
gradients are those of an interpolation (`kernel`) of some of them.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

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

__all__ = ["FeatureRegression"]

Array = NDArray[np.float64]

_CANDIDATES = ("candidates.unit", "candidates.value")

# Slope of log difficulty, a squared error, in log novelty before any difficulty is known, and how many records it
# weighs; the other features' slopes begin at 0. First-pass losses are noisy, and flattened by what the network has
# learned of a simulation's other samples: slopes that follow them quickly lost a third of the gain.
_PRIOR_SLOPE = {"novelty": 3.0}
_PRIOR_RECORDS = 200.0
_OTHERS_RECORDS = 1000.0
# Of the candidates, how many are interpolated, and at how many slopes are taken for that.
_INTERPOLATED = 400
_SLOPES_AT = 64


class FeatureRegression(Acquisition):
    """Log a as a linear function of the surrogate's features; without a probe the `blind` acquisition is used.

    Args:
        blind: Acquisition learned from λ and difficulties alone, used until a probe is available.
        prior_draws: draws n points of the prior in the unit cube, (n, k).
        candidates: at how many points features are taken at each learning.
        half_life: records after which a record's weight in the regression has halved.
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
        # The newest surrogate shown, and the one that was asked at the last learning.
        self._shown: Probe | None = None
        self._probe: Probe | None = None
        self._asked = False
        self._candidates: tuple[Array, Array] | None = None
        self._known = KernelInterpolant()
        self._slopes: dict[str, float] = {}

    @property
    def flat(self) -> bool:
        """Whether log a is constant."""
        return not self._known.fitted if self._asked else self._blind.flat

    @property
    def candidates(self) -> tuple[Array, Array] | None:
        """Draws of the prior at which log a is already known, or None."""
        return self._candidates

    @property
    def uses_surrogate(self) -> bool:
        """True: the features come from the surrogate."""
        return True

    def observe(self, probe: Probe) -> None:
        """Gives the acquisition a snapshot of the surrogate, evaluated at points of the unit cube."""
        self._shown = probe
        if self._probe is None:
            self._probe = probe

    def fit(self, table: EvidenceTable, rng: np.random.Generator) -> None:
        """Asks the surrogate anew, and weighs its features by what all difficulties say."""
        self._probe = probe = self._shown
        self._asked = probe is not None and table.unit.shape[1] > 0
        if probe is None or not self._asked:
            self._blind.fit(table, rng)
            return
        unit = self._prior_draws(self._count, rng)
        features = probe.features(unit)
        slopes = self._regression(probe.names, features, table)
        values = features @ slopes
        _, pullback = probe.features_and_pullback(unit[:_SLOPES_AT])
        gradient = pullback(np.broadcast_to(slopes, (_SLOPES_AT, len(slopes))))
        self._known.fit(unit[:_INTERPOLATED], values[:_INTERPOLATED], gradient)
        self._candidates = unit, values
        self._slopes = dict(zip(probe.names, slopes.tolist(), strict=True))

    def value(self, unit: Array) -> Array:
        """Returns log a (n,) at points (n, k) of the unit cube."""
        if not self._asked:
            return self._blind.value(unit)
        if self._probe is None:
            return self._known.value(unit)
        slopes = np.array([self._slopes.get(name, 0.0) for name in self._probe.names])
        return np.asarray(self._probe.features(unit) @ slopes)

    def value_and_gradient(self, unit: Array) -> tuple[Array, Array]:
        """Returns log a (n,) and its gradient (n, k) at points (n, k) of the unit cube."""
        if self._asked:
            return self._known.value_and_gradient(unit)
        return self._blind.value_and_gradient(unit)

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        return {
            "asked": self._asked,
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
        self._asked, self._slopes = state["asked"], dict(state["slopes"])
        self._probe = self._shown = self._candidates = None
        if _CANDIDATES[0] in state:
            self._candidates = np.array(state[_CANDIDATES[0]]), np.array(state[_CANDIDATES[1]])
        self._known.restore(part_of(state, "known."))
        self._blind.restore(part_of(state, "blind."))

    def diagnostics(self) -> dict[str, float]:
        """The slope of each feature, and the share of log a's variance that is interpolated rightly."""
        if not self._asked:
            return self._blind.diagnostics()
        slopes = {f"slope_{name}": slope for name, slope in self._slopes.items()}
        return {"interpolated": self._known.explained, **slopes}

    def _regression(self, names: tuple[str, ...], features: Array, table: EvidenceTable) -> Array:
        """Slopes of log difficulty in the features, by ridge regression towards the prior slopes.

        Args:
            names: of the j features.
            features: (n, j), at points of the prior: their spread is the unit of each slope.
            table: the history.
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
        # A surrogate that errs least where it is on new ground is chance.
        return np.where(prior > 0.0, np.maximum(slopes, 0.0), slopes)

"""The mixture q = (1-ρ) p + ρ g that every adaptive method draws from.

A method supplies an `AdaptiveRule`: how it learns, how it proposes, and log g if it is known. The share ρ
rises over the first generations, and a rule may reduce it by its gate. The draws from the prior bound the
importance weights p/q by 1 / (1-ρ) and explore regions that the adaptive part has not visited. They are the points of a
scrambled Sobol sequence: each point has the distribution of the prior, and together they fill the
cube more evenly than independent draws. They are used in the order of the sequence: where the share is 0,
the points are exactly those of the method `sobol` with the same seed. With a table of points, the draws are
independent.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log, log1p

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.acquisition.evidence_history import EvidenceHistory, EvidenceTable
from melissa_gen.sampling.acquisition.prediction_features import Probe, UnitCubeProbe
from melissa_gen.sampling.acquisition.seen_points import SeenPoints
from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.base import PRIOR, Evidence, Proposals, Sampler, State, part_of
from melissa_gen.sampling.designs.design_sampler import feasible_points
from melissa_gen.sampling.designs.quasi_random import SobolSequence
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["AdaptiveRule", "Draws", "MixtureSampler", "coverage"]

Array = NDArray[np.float64]

# Under constraints: number of draws from which the feasible share of the rule's draws is estimated
# (with a standard error of 3 % for a share of one half), and largest number of rounds to draw enough
# feasible points.
_TRIALS = 1024
_ATTEMPTS = 20


@dataclass(frozen=True)
class Draws:
    """Adaptive points (n, k) of the unit cube, and the parent simulation of each (n,), -1 for none."""

    unit: Array
    parents: NDArray[np.int64]


class AdaptiveRule(ABC):
    """Base class of the adaptive part g of a method.

    A rule works in the unit cube, where the density of the prior is 1. A subclass implements `ready`,
    `learn` and `propose`. The defaults of the other methods suit a rule without a known density that
    does not use the surrogate.

    Attributes:
        name: Name of the method.
        relative_to_prior: Under constraints, whether `log_density` is log g / p, with g and p
            restricted to the feasible points. If False, it is log g on the whole cube, as if there
            were no constraints. Without effect where the density is unknown.
    """

    name: str
    relative_to_prior: bool = True

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether the rule has learned enough to propose."""

    @property
    def gate(self) -> float:
        """Factor in [0, 1] of the share ρ; it may only change in `learn`."""
        return 1.0

    @abstractmethod
    def learn(self, table: EvidenceTable, rng: np.random.Generator) -> None:
        """Learns from the whole history."""

    @abstractmethod
    def propose(self, n: int, rng: np.random.Generator) -> Draws:
        """Draws n points from g."""

    def log_density(self, unit: Array) -> Array:
        """Returns log g (n,) at points (n, k) of the unit cube; NaN where unknown (the default)."""
        return np.full(len(unit), np.nan)

    def predict(self, unit: Array) -> Array | None:
        """Returns what the rule predicts of points before they are simulated.

        Args:
            unit: (n, k), points of the unit cube.

        Returns:
            (n, 1 + j): log a, then the j features of the probe, NaN where unknown. None (the
            default) for a rule that predicts nothing.
        """
        return None

    @property
    def uses_surrogate(self) -> bool:
        """Whether `observe` has an effect."""
        return False

    @property
    def uses_run_times(self) -> bool:
        """Whether the rule learns from the run times of simulations."""
        return False

    def observe(self, probe: Probe) -> None:
        """Gives the rule a snapshot of the surrogate, evaluated at points of the unit cube."""

    def state(self) -> State:
        """Returns everything learned, as arrays and JSON values."""
        return {}

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""

    def diagnostics(self) -> dict[str, float]:
        """Returns named finite numbers."""
        return {}


class MixtureSampler(Sampler):
    """A sampler that draws from a mixture of the prior and one `AdaptiveRule`.

    Args:
        prior: Prior distribution p(λ) of the parameters.
        seed: Seed of the random generator.
        rule: The adaptive part.
        schedule: Share ρ of adaptive points.
        history: Number of simulations whose evidence is kept.
        phase: Number of new simulations that are needed before the sampler learns again.

    Attributes:
        rule: The adaptive part.
    """

    def __init__(
        self,
        prior: Prior,
        seed: int,
        rule: AdaptiveRule,
        schedule: Schedule,
        history: int,
        phase: int = 1,
    ) -> None:
        super().__init__(rule.name, prior)
        self.rule = rule
        self._schedule = schedule
        self._records = EvidenceHistory(prior, history)
        self._seen = SeenPoints(prior)
        self._phase = phase
        self._rng = np.random.default_rng(seed)
        self._prior_sequence = SobolSequence(prior.unit_dimension, seed)
        self._learned = 0
        self._suggested = 0
        self._adaptive = 0
        self._coverage = 1.0
        self._feasible_share = 1.0

    @property
    def share(self) -> float:
        """The adaptive share ρ of the points that would be drawn now."""
        if not self.rule.ready:
            return 0.0
        return self._schedule.share(self.generation, self._learned) * self.rule.gate

    def suggest(self, n: int) -> Proposals:
        """Draws n points from the mixture.

        The number of adaptive points is n ρ, rounded up or down at random so that each point's
        density is exactly the mixture's, and their places among the points of the prior are random.
        """
        self.update()
        share = self.share
        whole = int(n * share)
        adaptive = min(n, whole + int(self._rng.random() < n * share - whole))
        unit = np.empty((n, self.prior.unit_dimension))
        parents = np.full(n, -1, dtype=np.int64)
        method = np.full(n, PRIOR, dtype=object)
        if adaptive > 0:
            draws = self._feasible(adaptive)
            adaptive = len(draws.unit)
            places = self._rng.permutation(n)[:adaptive]
            unit[places], parents[places] = draws.unit, draws.parents
            method[places] = self.name
            self._coverage = coverage(draws.unit)
        unit[method == PRIOR] = self._prior_points(n - adaptive)
        points = self.prior.from_unit(unit)
        self._suggested += n
        self._adaptive += adaptive
        if self.uses_surrogate:
            self._seen.add(points)
        predicted = self.rule.predict(unit)
        if predicted is not None:
            self._records.remember_predictions(points, predicted)
        return Proposals(
            points=points,
            log_density=self.prior.log_density(points) + self._log_ratio(unit, share),
            method=method.tolist(),
            generation=self.generation,
            parents=parents,
        )

    def _prior_points(self, n: int) -> Array:
        """Returns the next n points (n, k) of the prior in the unit cube."""
        if self.prior.tabulated:
            return self.prior.sample_unit(n, self._rng)
        return feasible_points(self._prior_sequence, self.prior, n, self.generation)

    def _feasible(self, n: int) -> Draws:
        """Draws n feasible points from the rule, or fewer if too many draws are infeasible."""
        draws = self.rule.propose(n, self._rng)
        if not self.prior.constrained:
            return draws
        met = self.prior.feasible(draws.unit)
        unit, parents, requested = draws.unit[met], draws.parents[met], n
        for _ in range(_ATTEMPTS):
            if len(unit) >= n:
                break
            # The number of draws follows from the feasible share so far. This saves rounds for slow rules.
            share = (len(unit) + 1) / (requested + 1)
            count = min(ceil((n - len(unit)) / share) + 1, 4 * n + 16)
            requested += count
            draws = self.rule.propose(count, self._rng)
            met = self.prior.feasible(draws.unit)
            unit = np.concatenate([unit, draws.unit[met]])
            parents = np.concatenate([parents, draws.parents[met]])
        return Draws(unit[:n], parents[:n])

    @property
    def uses_surrogate(self) -> bool:
        """Whether the adaptive rule uses the surrogate."""
        return self.rule.uses_surrogate

    @property
    def uses_run_times(self) -> bool:
        """Whether the adaptive rule learns from the run times of simulations."""
        return self.rule.uses_run_times

    def observe(self, probe: Probe) -> None:
        """Gives the rule a snapshot of the surrogate, and all points drawn so far."""
        if self.uses_surrogate:
            seen = self._seen.points()
            self.rule.observe(UnitCubeProbe(probe, self.prior).with_seen(seen))

    def log_density(self, points: Array) -> Array:
        """Returns the log density (n,) of the current mixture at points (n, d) in physical units."""
        unit = self.prior.to_unit(points)
        return self.prior.log_density(points) + self._log_ratio(unit, self.share)

    def ingest(self, evidence: Sequence[Evidence]) -> None:
        """Adds evidence to the history."""
        self._records.add(evidence)
        if self.uses_surrogate:
            self._seen.learn(evidence)

    def update(self) -> None:
        """Learns from new evidence, if there is any, and starts the next generation."""
        # Without phases, newer evidence on a known simulation is sufficient to learn again.
        if self._records.changed and (self._phase <= 1 or self._records.fresh >= self._phase):
            table = self._records.table()
            self.rule.learn(table, self._rng)
            self._learned += int((table.fresh & np.isfinite(table.difficulty)).sum())
            self._records.settle()
            self.generation += 1
            if self.prior.constrained and self.rule.ready and not self.rule.relative_to_prior:
                # The density of every draw depends on this share, so it is estimated first.
                trial = self.rule.propose(_TRIALS, self._rng).unit
                met = int(self.prior.feasible(trial).sum())
                self._feasible_share = max(met, 1) / _TRIALS

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        counts = [self.generation, self._learned, self._suggested, self._adaptive]
        return {
            "name": self.name,
            "rng": self._rng.bit_generator.state,
            "prior_sequence": self._prior_sequence.state(),
            "counts": counts,
            "coverage": self._coverage,
            "feasible_share": self._feasible_share,
            **self._records.state(),
            **self._seen.state(),
            **{f"rule.{key}": value for key, value in self.rule.state().items()},
        }

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self._rng.bit_generator.state = state["rng"]
        self._prior_sequence.restore(state["prior_sequence"])
        self.generation, self._learned, self._suggested, self._adaptive = state["counts"]
        self._coverage = state["coverage"]
        self._feasible_share = state["feasible_share"]
        self._records.restore(state)
        self._seen.restore(state)
        self.rule.restore(part_of(state, "rule."))

    def diagnostics(self) -> dict[str, float]:
        """Returns named finite numbers.

        `coverage` is that of the newest adaptive points. `feasible` is the share of the rule's draws
        that meets the constraints; it is 1 unless the density depends on it.
        """
        return {
            "generation": float(self.generation),
            "suggested": float(self._suggested),
            "adaptive": float(self._adaptive),
            "share": self.share,
            "records": float(len(self._records)),
            "failed": float(self._records.failed),
            "rejected": float(self._records.rejected),
            "coverage": self._coverage,
            "feasible": self._feasible_share,
            **self.rule.diagnostics(),
        }

    def _log_ratio(self, unit: Array, share: float) -> Array:
        """Returns log q/p (n,) at points (n, k) of the unit cube; exactly 0 if the share is 0."""
        if share == 0.0:
            return np.zeros(len(unit))
        adaptive = self.rule.log_density(unit)
        if self.prior.constrained and not self.rule.relative_to_prior:
            # Both g and p are restricted to the feasible points.
            adaptive = adaptive + log(self.prior.feasible_share / self._feasible_share)
        # The adaptive part is NaN where its density is unknown.
        with np.errstate(invalid="ignore"):
            return np.asarray(np.logaddexp(log1p(-share), log(share) + adaptive))


def coverage(unit: Array, bins: int = 10) -> float:
    """Returns how evenly points fill the axes: exp(entropy) of the marginal histograms over `bins`.

    The coverage is 1 for even marginals, and 1/`bins` if all points are in one bin on every axis. With
    fewer points than bins it is relative to the number of points.

    Args:
        unit: (n, k), points of the unit cube.
        bins: Number of bins on each axis.
    """
    if unit.size == 0:
        return 1.0
    n, axes = unit.shape
    cell = np.minimum((unit * bins).astype(np.int64), bins - 1)
    spread = 0.0
    for axis in range(axes):
        share = np.bincount(cell[:, axis], minlength=bins) / n
        share = share[share > 0.0]
        spread += float(np.exp(-(share * np.log(share)).sum())) / min(bins, n)
    return float(spread / axes)

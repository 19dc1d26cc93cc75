"""The adaptive rule of all methods with an acquisition.

The rule learns an acquisition a(λ) from the evidence, and a `Proposer` draws points from p a^β.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from melissa_gen.sampling.acquisition.adjusted_acquisition import AdjustedAcquisition
from melissa_gen.sampling.acquisition.base_acquisition import (
    Acquisition,
    Tilt,
    matching_exponent,
    supported_exponent,
)
from melissa_gen.sampling.acquisition.difficulty_ensemble import DifficultyEnsemble
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.acquisition.failure_avoidance import FailureAvoidance
from melissa_gen.sampling.acquisition.feature_regression import FeatureRegression
from melissa_gen.sampling.acquisition.prediction_features import Probe
from melissa_gen.sampling.acquisition.run_times import PerRunTime
from melissa_gen.sampling.acquisition.skill import Skill
from melissa_gen.sampling.acquisition.user_acquisition import Adjust, UserAcquisition
from melissa_gen.sampling.adaptive.mixture import AdaptiveRule, Draws, MixtureSampler
from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.arguments import Arguments
from melissa_gen.sampling.base import Sampler, State, part_of
from melissa_gen.sampling.designs.quasi_random import even_draws
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = [
    "AcquisitionArguments",
    "AcquisitionRule",
    "DensityProposer",
    "EnsembleArguments",
    "PriorDraws",
    "Proposer",
    "acquisition_sampler",
    "adjust_acquisition",
]

Array = NDArray[np.float64]
PriorDraws = Callable[[int, np.random.Generator], Array]

# Points of the prior from which Z is estimated, and draws from which the exponent b is estimated.
_NORMALIZATION_POINTS = 2048
_CALIBRATION_DRAWS = 64
# Smallest effective sample size of the points of the prior, weighted by a^b, among which draws are made.
_SUPPORT = 16.0
# Relative change of the strength above which b is measured again.
_CALIBRATION_TOLERANCE = 0.25


class EnsembleArguments(Arguments):
    """Arguments of all samplers that learn an acquisition a(λ)."""

    guide: Literal["surrogate", "difficulty"] = Field(
        "surrogate",
        description="basis of the acquisition: predictions of the surrogate, or difficulties alone",
    )
    kappa: float = Field(
        0.5, ge=0.0, le=10.0, description="weight κ of the spread between the networks"
    )
    members: int = Field(4, ge=2, le=16, description="number of networks in the ensemble")
    half_life: float = Field(
        200.0, gt=0.0, description="number of records after which the weight of a record is halved"
    )
    history: int = Field(
        1000,
        ge=10,
        description="number of newest records to learn from; novelty is relative to all points of the study",
    )
    cost: Literal["equal", "measured"] = Field(
        "equal",
        description="cost of a simulation: `equal` for all, or `measured`, by which the acquisition a(λ) is "
        "divided: the run time, interpolated between the simulations that have finished",
    )
    gate: bool = Field(
        False,
        description="multiply the adaptive share by a gate that is 0 until the acquisition predicts the measured "
        "difficulties",
    )


class AcquisitionArguments(EnsembleArguments):
    """Arguments of all samplers that draw from p(λ) a(λ)^β."""

    beta: float = Field(1.4, ge=0.0, le=20.0, description="exponent β of the acquisition")


class Proposer(ABC):
    """Base class of the proposers, which draw from (an approximation of) a(u)^β on the unit cube.

    A subclass sets `exact` and implements `draw`. The defaults of the other methods suit a proposer
    without state. If the density of the draws is known, the base class is `DensityProposer`; otherwise
    an exponential tilt stands for it.

    Attributes:
        exact: Whether the draws follow a^β in a limit that the proposer states. If not, the
            density is estimated from draws. It may only change in `fit`.
    """

    exact: bool

    @abstractmethod
    def draw(
        self, n: int, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> Array:
        """Draws n points (n, k) of the unit cube, with the given generator alone."""

    def next(
        self, n: int, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> Array:
        """Draws the next n proposals (n, k).

        The same as `draw` by default. A proposer whose proposals form one sequence over all
        generations continues it here, while `draw` leaves it as it is.
        """
        return self.draw(n, acquisition, beta, rng)

    def fit(
        self, table: EvidenceTable, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> None:
        """Fits the proposer's own model, each time after the acquisition has learned."""

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        return {}

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""

    def diagnostics(self) -> dict[str, float]:
        """Returns named finite numbers of the last draw or fit."""
        return {}


class DensityProposer(Proposer):
    """Base class of the proposers that know the density of their draws.

    Attributes:
        relative_to_prior: Under constraints, whether `log_density` is relative to the prior, with both
            densities restricted to the feasible points.
    """

    relative_to_prior: ClassVar[bool] = True

    @abstractmethod
    def log_density(self, unit: Array, acquisition: Acquisition) -> Array:
        """Returns the log density (n,) of the draws at points (n, k) of the unit cube."""


class AcquisitionRule(AdaptiveRule):
    """An adaptive rule that consists of a learned acquisition and a proposer.

    The log density is that of an exponential tilt, a^b / Z. The normalization Z is estimated from
    points of the prior: the candidates of the acquisition, or 2,048 points drawn at each learning. If
    the proposer is exact in a limit, b is β, and the density is exact up to that limit and the error
    of Z. For a target so narrow that the effective sample size of these points is below 16, b is lowered
    until it is 16. If the proposer is not exact, b is the maximum-likelihood exponent of 64 draws, which
    gives the overall concentration, but not the exact shape. The diagnostic `tilt` is b.

    A proposer that is not exact over-concentrates: with exponent β its draws have some b > β. With
    `calibrate`, its exponent is multiplied by β / b at each learning, so that b converges to β. The
    diagnostic `strength` is this exponent.

    If the proposer has a density of its own, that density replaces the tilt.

    Args:
        name: Name of the method.
        prior_draws: Function that draws n points (n, k) of the prior in the unit cube.
        acquisition: Acquisition that learns log a.
        proposer: Proposer that draws the points.
        beta: Exponent β of the target p a^β.
        calibrate: Whether to correct the concentration of a proposer that is not exact.
        gated: Whether the adaptive share follows the skill of the acquisition; see `Skill`.

    Attributes:
        acquisition: Acquisition that learns log a; may be replaced before the first learning.
        proposer: Proposer that draws the points.
    """

    def __init__(
        self,
        name: str,
        prior_draws: PriorDraws,
        acquisition: Acquisition,
        proposer: Proposer,
        beta: float,
        calibrate: bool = True,
        gated: bool = False,
    ) -> None:
        self.name = name
        self._prior_draws = prior_draws
        self.acquisition = acquisition
        self.proposer = proposer
        self._density = proposer if isinstance(proposer, DensityProposer) else None
        self.relative_to_prior = self._density is None or self._density.relative_to_prior
        self._beta = beta
        self._strength = beta
        self._calibrate = calibrate
        self._tilt = Tilt(beta, 0.0)
        self._gated = gated
        self._skill = Skill()
        self._level = 0.0
        self._probe: Probe | None = None

    @property
    def uses_surrogate(self) -> bool:
        """Whether the acquisition uses the surrogate."""
        return self.acquisition.uses_surrogate

    @property
    def uses_run_times(self) -> bool:
        """Whether the acquisition learns from the run times of simulations."""
        return self.acquisition.uses_run_times

    def observe(self, probe: Probe) -> None:
        """Gives the acquisition a snapshot of the surrogate, evaluated at points of the unit cube."""
        if self.uses_surrogate:
            self._probe = probe
            self.acquisition.observe(probe)

    def predict(self, unit: Array) -> Array:
        """Returns log a, without costs, and the features of the probe at points (n, k): (n, 1 + j).

        Log a is relative to its mean over the candidates. Novelty decreases in the course of a study, while
        difficulties are relative to the average of their time.
        """
        value = np.full(len(unit), np.nan)
        if self.ready:
            value = self.acquisition.difficulty(unit) - self._level
        if self._probe is None:
            return value[:, None]
        return np.column_stack([value, self._probe.features(unit)])

    @property
    def gate(self) -> float:
        """The part of the adaptive share that the skill of the acquisition deserves."""
        return self._skill.gate if self._gated else 1.0

    @property
    def ready(self) -> bool:
        """Whether the acquisition has learned differences between points."""
        return not self.acquisition.flat

    def learn(self, table: EvidenceTable, rng: np.random.Generator) -> None:
        """Fits the acquisition, the proposer and the density to the whole history."""
        self._skill = Skill.measured(table)
        self.acquisition.fit(table, rng)
        if not self.ready:
            return
        known = self.acquisition.candidates
        self._level = float(known[1].mean()) if known else 0.0
        self.proposer.fit(table, self.acquisition, self._beta, rng)
        if self._density is not None:
            return
        points, pool = known or (self._prior_draws(_NORMALIZATION_POINTS, rng), None)
        pool = self.acquisition.value(points) if pool is None else pool
        if self.proposer.exact:
            # Draws of fewer points would be wider than the density, since no point is drawn twice.
            self._strength = supported_exponent(pool, self._beta, min(_SUPPORT, len(pool)))
        elif not self._calibrate:
            self._strength = self._beta
        exponent = self._strength
        if not self.proposer.exact and self._beta > 0.0:
            exponent = self._measured_exponent(pool, rng)
            if self._calibrate:
                # The steps are bounded, because the measurement is mostly noise where a is nearly flat.
                before = self._strength
                change = np.clip(self._beta / max(exponent, 1e-12), 0.5, 2.0)
                strength = np.clip(before * change, 0.1 * self._beta, 2.0 * self._beta)
                self._strength = float(strength)
                # For a small change b is proportional to the strength; after a large one it is measured again.
                exponent *= self._strength / before
                if abs(self._strength / before - 1.0) > _CALIBRATION_TOLERANCE:
                    exponent = self._measured_exponent(pool, rng)
        self._tilt = Tilt.normalized(exponent, pool)

    def propose(self, n: int, rng: np.random.Generator) -> Draws:
        """Draws n points (n, k) of the unit cube from the adaptive part."""
        unit = self.proposer.next(n, self.acquisition, self._strength, rng)
        return Draws(unit, np.full(n, -1, dtype=np.int64))

    def log_density(self, unit: Array) -> Array:
        """Returns the log density (n,) of the adaptive part at points (n, k) of the unit cube."""
        if self._density is not None:
            return self._density.log_density(unit, self.acquisition)
        return self._tilt.log_density(self.acquisition.value(unit))

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        return {
            **{f"proposer.{k}": v for k, v in self.proposer.state().items()},
            "tilt": [self._tilt.exponent, self._tilt.log_normalizer, self._strength],
            "skill": [self._skill.correlation, self._skill.compared, self._level],
            **{f"acquisition.{k}": v for k, v in self.acquisition.state().items()},
        }

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        exponent, log_normalizer, self._strength = state["tilt"]
        self._tilt = Tilt(exponent, log_normalizer)
        correlation, compared, self._level = state["skill"]
        self._skill = Skill(correlation, int(compared))
        self.acquisition.restore(part_of(state, "acquisition."))
        self.proposer.restore(part_of(state, "proposer."))

    def diagnostics(self) -> dict[str, float]:
        """Returns named finite numbers.

        `rank_correlation` is Spearman's rank correlation of the predicted and the measured difficulties of the
        last simulations (at least 8, at most 100), and `skill` is its lower confidence bound. `gate` is the part
        of the adaptive share that is used.
        """
        numbers = {**self.acquisition.diagnostics(), **self.proposer.diagnostics()}
        if self.ready and self._density is None:
            numbers["tilt"] = self._tilt.exponent
            numbers["strength"] = self._strength
        if self._skill.known:
            numbers["rank_correlation"] = self._skill.correlation
            numbers["skill"] = self._skill.lower
        numbers["gate"] = self.gate
        return numbers

    def _measured_exponent(self, pool: Array, rng: np.random.Generator) -> float:
        """Returns the exponent b of the proposer's draws at the current strength."""
        own = self.proposer.draw(_CALIBRATION_DRAWS, self.acquisition, self._strength, rng)
        mean = float(self.acquisition.value(own).mean())
        return matching_exponent(pool, mean, 5.0 * self._beta)


def acquisition_sampler(
    name: str,
    prior: Prior,
    seed: int,
    arguments: EnsembleArguments,
    proposer: Proposer,
    schedule: Schedule,
    beta: float,
    calibrate: bool = True,
    phase: int = 1,
) -> MixtureSampler:
    """Creates a mixture sampler whose adaptive part draws from p a^β.

    Args:
        name: Name of the method.
        prior: Prior distribution p(λ) of the parameters.
        seed: Seed of the random generator.
        arguments: Arguments of the method.
        proposer: Proposer that draws the adaptive points.
        schedule: Share ρ of adaptive points.
        beta: Exponent β of the acquisition.
        calibrate: Whether to correct the concentration of a proposer that is not exact.
        phase: Number of new simulations that are needed before the sampler learns again.
    """
    dimension, draws = prior.unit_dimension, even_draws(prior)
    acquisition: Acquisition = DifficultyEnsemble(
        dimension, arguments.members, arguments.kappa, arguments.half_life
    )
    if arguments.guide == "surrogate":
        acquisition = FeatureRegression(acquisition, draws, half_life=arguments.half_life)
    learned: Acquisition = FailureAvoidance(acquisition)
    if arguments.cost == "measured":
        learned = PerRunTime(learned)
    rule = AcquisitionRule(name, draws, learned, proposer, beta, calibrate, arguments.gate)
    return MixtureSampler(prior, seed, rule, schedule, arguments.history, phase)


def adjust_acquisition(sampler: Sampler, adjust: Adjust) -> bool:
    """Passes the acquisition of a sampler through a function of the user.

    The run time and the probability of failure then change what the function returns.

    Args:
        sampler: The sampler, before its first learning.
        adjust: Takes the parameters by name (n,), log a (n,), and a function without arguments that returns the
            predicted fields by name (n, T, *shape); returns the new log a (n,).

    Returns:
        Whether the method has an acquisition; if not, nothing is changed.
    """
    rule = sampler.rule if isinstance(sampler, MixtureSampler) else None
    if not isinstance(rule, AcquisitionRule):
        return False
    acquisition, prior = rule.acquisition, sampler.prior
    if not isinstance(acquisition, AdjustedAcquisition):
        return False
    acquisition.put_inside(lambda inner: UserAcquisition(inner, adjust, prior, even_draws(prior)))
    return True

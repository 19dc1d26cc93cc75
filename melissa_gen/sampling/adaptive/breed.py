"""`breed`: adaptive population Monte Carlo around simulations that were difficult to learn.

Parents are drawn from a sliding window over the newest simulations, with probability proportional to
difficulty. A child is its parent plus a normal step of width σ, relative to the range of each
parameter. If the step leaves the box, it is drawn again with the covariance multiplied by 0.3. After
six attempts the child is a copy of its parent. A share R of the points are children, and the others
are uniform. R changes linearly from its first to its last value over some generations.

The published difficulty signal is `delta_loss`.

Reference: Breed, hal-04712480 and hal-04305233.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.adaptive.mixture import AdaptiveRule, Draws, MixtureSampler
from melissa_gen.sampling.adaptive_share import Ramp, Schedule
from melissa_gen.sampling.arguments import Arguments, StudyFacts
from melissa_gen.sampling.base import State
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["REGIMES", "Breed", "BreedArguments", "BreedRamp", "Regime", "build"]

Array = NDArray[np.float64]

_SHRINK = 0.3
_ATTEMPTS = 6


class Regime(NamedTuple):
    """A published setting of the method.

    Attributes:
        sigma: Width σ of the first step, relative to the range of a parameter.
        share_start: Share of children in the first adaptive generation.
        share_end: Share of children after the ramp.
        breakpoint: Number of generations of the ramp.
        windows: Length of the window of parents, in multiples of the reservoir's capacity in
            simulations.
    """

    sigma: float
    share_start: float
    share_end: float
    breakpoint: int
    windows: float


REGIMES: dict[str, Regime] = {
    "precise": Regime(0.05, 0.5, 0.75, 5, 1.0),
    "broad": Regime(0.1, 0.75, 0.9, 3, 2.0),
    "mixed": Regime(0.1, 0.5, 0.9, 3, 1.0),
    "soft": Regime(0.1, 0.75, 0.5, 5, 3.0),
}


class BreedArguments(Arguments):
    """Arguments of `breed`; a value that is given overrides that of the regime."""

    regime: Literal["precise", "broad", "mixed", "soft"] = Field(
        "broad", description="published setting of σ, shares and window"
    )
    sigma: float | None = Field(
        None, gt=0.0, le=1.0, description="width of a step, relative to the range"
    )
    share_start: float | None = Field(
        None, ge=0.0, le=1.0, description="share of children in the first adaptive generation"
    )
    share_end: float | None = Field(
        None, ge=0.0, le=1.0, description="share of children after the ramp"
    )
    breakpoint: int | None = Field(None, ge=1, description="number of generations of the ramp")
    window: int | None = Field(
        None, ge=1, description="number of newest simulations that may be parents"
    )
    capacity_simulations: int = Field(
        100, ge=1, description="capacity of the reservoir in simulations, the unit of the window"
    )

    @classmethod
    def completed(cls, given: Mapping[str, Any], facts: StudyFacts) -> dict[str, Any]:
        """Sets `capacity_simulations` to the capacity of the study's reservoirs."""
        return {"capacity_simulations": facts.reservoir_simulations, **given}

    def resolved(self) -> tuple[Regime, int]:
        """Returns the regime with all overrides applied, and the window in simulations."""
        regime = REGIMES[self.regime]
        given = {
            name: getattr(self, name)
            for name in ("sigma", "share_start", "share_end", "breakpoint")
            if getattr(self, name) is not None
        }
        window = self.window or max(1, round(regime.windows * self.capacity_simulations))
        return regime._replace(**given), window


@dataclass(frozen=True)
class BreedRamp(Schedule):
    """Linear ramp of the share of children; replaces the common ramp.

    Args:
        start: Share in the first adaptive generation.
        end: Share from `breakpoint` generations later on.
        breakpoint: Number of generations of the ramp, at least 1.
        max_share: Upper bound of the share.
    """

    start: float
    end: float
    breakpoint: int
    max_share: float

    def share(self, generation: int, simulations: int = 0) -> float:
        """Returns the share of children in a generation; 0 in generation 0."""
        if generation <= 0:
            return 0.0
        part = min(1.0, (generation - 1) / self.breakpoint)
        return min(self.max_share, self.start + part * (self.end - self.start))


class Breed(AdaptiveRule):
    """The adaptive rule of the method `breed`.

    The density is exact except for children that are copies of their parent, which have no density.
    It is the density of the other children, including their probability. Copies are rare unless a
    parent is in a corner of a box of many dimensions.

    Args:
        dimension: Number of axes k of the unit cube.
        sigma: Width of the first step, relative to the range of a parameter.
        window: Number of newest simulations that may be parents.
    """

    name = "breed"
    relative_to_prior = False

    def __init__(self, dimension: int, sigma: float, window: int) -> None:
        self._sigma = sigma * _SHRINK ** (0.5 * np.arange(_ATTEMPTS))
        self._window = window
        self._parents = np.empty((0, dimension))
        self._simulations = np.empty(0, dtype=np.int64)
        self._probability = np.empty(0)

    @property
    def ready(self) -> bool:
        """Whether there is at least one parent."""
        return len(self._parents) > 0

    def learn(self, table: EvidenceTable, rng: np.random.Generator) -> None:
        """Makes the simulations of the window the parents; equally probable if all difficulties are 0."""
        table = table.usable()
        table = table.rows(slice(max(0, len(table) - self._window), None))
        self._parents, self._simulations = table.unit, table.simulation
        total = float(table.difficulty.sum())
        even = np.full(len(table), 1.0 / max(len(table), 1))
        self._probability = table.difficulty / total if total > 0.0 else even

    def propose(self, n: int, rng: np.random.Generator) -> Draws:
        """Draws n children (n, k) in the unit cube."""
        chosen = rng.choice(len(self._parents), size=n, p=self._probability)
        parents = self._parents[chosen]
        child = parents.copy()
        outside = np.arange(n)
        for sigma in self._sigma:
            trial = parents[outside] + sigma * rng.standard_normal(parents[outside].shape)
            inside = np.all((trial >= 0.0) & (trial <= 1.0), axis=1)
            child[outside[inside]] = trial[inside]
            outside = outside[~inside]
        return Draws(child, self._simulations[chosen])

    def log_density(self, unit: Array) -> Array:
        """Returns the log density (n,) of the children at points (n, k) of the unit cube.

        The density is Σ_j P(j) Σ_i r_ij N(u; λ_j, σ_i²), with r_ij the probability that the first
        i - 1 steps from parent j have left the box.
        """
        from scipy.special import logsumexp, ndtr

        k = unit.shape[1]
        squared = ((unit[:, None, :] - self._parents[None, :, :]) ** 2).sum(axis=2)
        with np.errstate(divide="ignore"):
            reach = np.log(self._probability)
            terms = []
            for sigma in self._sigma:
                constant = -0.5 * k * np.log(2.0 * np.pi * sigma**2)
                terms.append(reach + constant - 0.5 * squared / sigma**2)
                inside = ndtr((1.0 - self._parents) / sigma) - ndtr(-self._parents / sigma)
                reach = reach + np.log1p(-np.minimum(inside.prod(axis=1), 1.0))
        return np.asarray(logsumexp(np.concatenate(terms, axis=1), axis=1))

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        return {
            "parents": self._parents.copy(),
            "simulations": self._simulations.copy(),
            "probability": self._probability.copy(),
        }

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self._parents = np.array(state["parents"])
        self._simulations = np.array(state["simulations"])
        self._probability = np.array(state["probability"])

    def diagnostics(self) -> dict[str, float]:
        """Returns the number of parents, and their effective number 1 / Σ P²."""
        effective = 1.0 / float((self._probability**2).sum()) if self.ready else 0.0
        return {"parents": float(len(self._parents)), "parents_ess": effective}


def build(prior: Prior, seed: int, arguments: BreedArguments, ramp: Ramp) -> MixtureSampler:
    """Creates the `breed` sampler."""
    regime, window = arguments.resolved()
    rule = Breed(prior.unit_dimension, regime.sigma, window)
    schedule = BreedRamp(regime.share_start, regime.share_end, regime.breakpoint, ramp.max_share)
    return MixtureSampler(prior, seed, rule, schedule, history=2 * window)

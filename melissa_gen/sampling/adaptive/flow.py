"""`flow`: population Monte Carlo with a normalizing flow; the density log q is exact.

A refit consists of a few rounds. Each round draws a population, half of it from the current flow and
half from the prior, weights it by p a^β / q, and fits the flow to it by weighted maximum likelihood.
This minimizes the *forward* Kullback-Leibler divergence, which penalizes missing parts of the
target. The reverse divergence would not need a population, but it is mode seeking.

Departure from the first reference: one flow is fitted, from which half of the population is drawn, and not a population
of proposals with a flow each. The prior's half of the population replaces their diversity.

The flow is a neural spline flow of the package zuko on R^k. The map u = Φ(z) takes its points into
the unit cube, so that no point leaves the box. Φ is used instead of the logistic function because the
base distribution of the flow then equals the prior: an untrained flow proposes the prior itself. The
log density is that of the flow at z minus Σ log φ(z).

Requires the package zuko: `pip install 'melissa-gen[flows]'`.

References: adaptive importance sampling with normalizing flows, arXiv 2312.03857; neural spline
flows: Durkan et al., arXiv 1906.04032.
"""

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from melissa_gen.distributions import EDGE
from melissa_gen.errors import StudyError
from melissa_gen.sampling.acquisition.base_acquisition import Acquisition, effective_size
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.adaptive.acquisition_rule import (
    AcquisitionArguments,
    DensityProposer,
    acquisition_sampler,
)
from melissa_gen.sampling.adaptive.mixture import MixtureSampler
from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.base import State
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["FlowArguments", "NormalizingFlow", "build"]

Array = NDArray[np.float64]

_LOG_ROOT_2PI = 0.5 * float(np.log(2.0 * np.pi))
# Points further out in the tails would be rounded to a face of the cube.
_MAX_NORMAL = 8.0


class FlowArguments(AcquisitionArguments):
    """Arguments of `flow`."""

    transforms: int = Field(2, ge=1, le=20, description="number of spline transforms")
    bins: int = Field(8, ge=2, le=64, description="number of bins of each spline")
    hidden: int = Field(32, ge=4, le=1024, description="width of the two hidden layers")
    rounds: int = Field(3, ge=1, le=100, description="number of populations per refit")
    population: int = Field(
        2048, ge=64, le=1_000_000, description="number of points in a population"
    )
    training_steps: int = Field(20, ge=1, le=100_000, description="training batches per population")


class NormalizingFlow(DensityProposer):
    """Proposer of the method `flow`; its density is exact.

    Args:
        dimension: Number of axes k of the unit cube.
        seed: Seed of the initial weights.
        arguments: Arguments of the method.

    Raises:
        StudyError: zuko is not installed.
    """

    exact = True
    relative_to_prior = False

    def __init__(self, dimension: int, seed: int, arguments: FlowArguments) -> None:
        self._dimension = dimension
        self._arguments = arguments
        self._flow = _build_flow(dimension, seed, self._arguments)
        self._effective = 1.0
        self._fits = 0

    def fit(
        self, table: EvidenceTable, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> None:
        """Fits the flow to a^β. The first fit takes twice the number of rounds."""
        import torch

        if self._flow is None:
            return
        settings = self._arguments
        optimizer = torch.optim.Adam(self._flow.parameters(), lr=5e-3)
        rounds = settings.rounds * (1 if self._fits else 2)
        batch = min(256, settings.population)
        for number in range(rounds):
            # The learning rate decreases with each round, because later populations are closer to the target.
            optimizer.param_groups[0]["lr"] = 5e-3 * (1.0 - number / rounds)
            half = settings.population // 2
            unit = np.concatenate([self._sample(half, rng), rng.random((half, self._dimension))])
            log_q = np.logaddexp(self.log_density(unit, acquisition), 0.0) - np.log(2.0)
            log_weight = beta * acquisition.value(unit) - log_q
            weight = np.exp(log_weight - log_weight.max())
            self._effective = effective_size(log_weight) / len(unit)
            z = _to_normal(unit)
            for _ in range(settings.training_steps):
                rows = rng.choice(len(z), size=batch, p=weight / weight.sum())
                loss = -self._flow().log_prob(torch.from_numpy(z[rows]).float()).mean()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self._flow.parameters(), 10.0)
                optimizer.step()
        self._fits += 1

    def draw(
        self, n: int, acquisition: Acquisition, beta: float, rng: np.random.Generator
    ) -> Array:
        """Draws n points (n, k) of the unit cube."""
        return self._sample(n, rng)

    def log_density(self, unit: Array, acquisition: Acquisition) -> Array:
        """Returns the exact log density (n,) of the draws at points (n, k) of the unit cube."""
        import torch

        if self._flow is None or len(unit) == 0:
            return np.zeros(len(unit))
        z = _to_normal(unit)
        with torch.no_grad():
            log_prob = self._flow().log_prob(torch.from_numpy(z).float()).numpy()
        volume = (0.5 * z * z + _LOG_ROOT_2PI).sum(axis=1)
        return np.asarray(log_prob.astype(np.float64) + volume)

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        state: State = {"fits": [self._fits, self._effective]}
        if self._flow is not None:
            for name, weight in self._flow.named_parameters():
                state[f"w.{name}"] = weight.detach().numpy().copy()
        return state

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        import torch

        self._fits, self._effective = state["fits"]
        if self._flow is not None:
            with torch.no_grad():
                for name, weight in self._flow.named_parameters():
                    weight.copy_(torch.from_numpy(np.array(state[f"w.{name}"])))

    def diagnostics(self) -> dict[str, float]:
        """Returns the relative effective sample size of the last population; near 1 after convergence."""
        return {"population_ess": self._effective}

    def _sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draws n points (n, k) of the unit cube from the flow with the given random generator."""
        import torch
        from scipy.special import ndtr

        base = rng.standard_normal((n, self._dimension))
        if self._flow is None or n == 0:
            return np.asarray(ndtr(base))
        with torch.no_grad():
            z = self._flow().transform.inv(torch.from_numpy(base).float()).numpy()
        z = np.clip(np.nan_to_num(z.astype(np.float64)), -_MAX_NORMAL, _MAX_NORMAL)
        return np.asarray(ndtr(z))


def _build_flow(dimension: int, seed: int, arguments: FlowArguments) -> Any:
    """Creates the flow with seeded initial weights; the global random state is not changed."""
    try:
        import torch

        # zuko is optional; a dynamic import keeps type checkers from requiring it.
        flows = import_module("zuko.flows")
    except ImportError:
        msg = (
            "sampler.method is 'flow', which needs the package zuko; "
            "install it with: pip install 'melissa-gen[flows]'."
        )
        raise StudyError(msg) from None
    if dimension == 0:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow = flows.NSF(
            dimension,
            transforms=arguments.transforms,
            bins=arguments.bins,
            hidden_features=(arguments.hidden, arguments.hidden),
            # With two passes (coupling layers) the inverse is as cheap as the forward transform.
            passes=min(2, dimension),
        )
    with torch.no_grad():
        # Weights near 0 in the last layer of each network make all splines the identity at first.
        for module in flow.modules():
            if isinstance(module, torch.nn.Sequential):
                last = [m for m in module if isinstance(m, torch.nn.Linear)]
                if last:
                    last[-1].weight.mul_(0.01)
                    last[-1].bias.zero_()
        for name, weight in flow.named_parameters():
            if "hyper" not in name:
                weight.zero_()
    return flow


def _to_normal(unit: Array) -> Array:
    from scipy.special import ndtri

    return np.asarray(np.clip(ndtri(np.clip(unit, EDGE, 1.0 - EDGE)), -_MAX_NORMAL, _MAX_NORMAL))


def build(prior: Prior, seed: int, arguments: FlowArguments, schedule: Schedule) -> MixtureSampler:
    """Creates the `flow` sampler.

    Raises:
        StudyError: zuko is not installed.
    """
    proposer = NormalizingFlow(prior.unit_dimension, seed, arguments)
    return acquisition_sampler("flow", prior, seed, arguments, proposer, schedule, arguments.beta)

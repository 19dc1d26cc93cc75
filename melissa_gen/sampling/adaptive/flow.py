"""`flow`: population Monte Carlo with a normalising flow, whose density is exact.

Each refit draws a population from the half-and-half mixture of the present flow and the prior,
weighs it by p a^β / q, and fits the flow to it by weighted maximum likelihood; a few rounds of it. That
is the *forward* Kullback-Leibler divergence, which must cover all of the target; the reverse one
needs no population, but seeks a single mode. (Adaptive importance sampling with normalising flows,
arXiv 2312.03857.)

The flow, a neural spline flow by zuko (Durkan et al., arXiv 1906.04032), lives on all of R^k, and
u = Φ(z) takes its points into the cube, so none ever leaves it. Φ takes the place of the logistic function
because the flow's base is then exactly the prior: an untrained flow proposes the prior itself.
log q is exact: that of the flow in z minus Σ log φ(z).

Needs the package zuko.
"""

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import ndtr, ndtri

from melissa_gen.distributions import EDGE
from melissa_gen.errors import StudyError
from melissa_gen.sampling.acquisition.base_acquisition import Acquisition
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.adaptive.acquisition_rule import (
    AcquisitionArguments,
    Proposer,
    acquisition_sampler,
)
from melissa_gen.sampling.adaptive.mixture import MixtureSampler
from melissa_gen.sampling.adaptive.twisted import effective_size
from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.base import State
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["Flow", "FlowArguments", "build"]

Array = NDArray[np.float64]

_LOG_ROOT_2PI = 0.5 * float(np.log(2.0 * np.pi))
# A point deeper in a tail than this would be rounded to the face of the cube.
_DEEPEST = 8.0


class FlowArguments(AcquisitionArguments):
    """Arguments of `flow`."""

    transforms: int = Field(2, ge=1, le=20, description="spline transforms in a row")
    bins: int = Field(8, ge=2, le=64, description="bins of a spline")
    hidden: int = Field(32, ge=4, le=1024, description="width of the two hidden layers")
    rounds: int = Field(3, ge=1, le=100, description="populations drawn in a refit")
    population: int = Field(2048, ge=64, le=1_000_000, description="points of a population")
    training_steps: int = Field(20, ge=1, le=100_000, description="batches for each population")


class Flow(Proposer):
    """Proposer of `flow`, exact in its density.

    Args:
        dimension: axes k of the unit cube.
        seed: of the first weights.
        arguments: see there.
    """

    exact = True
    has_density = True
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
        """Fits to a^β; see `Trainable`. The first fit takes twice the rounds."""
        import torch

        if self._flow is None:
            return
        settings = self._arguments
        optimizer = torch.optim.Adam(self._flow.parameters(), lr=5e-3)
        rounds = settings.rounds * (1 if self._fits else 2)
        batch = min(256, settings.population)
        for number in range(rounds):
            # The rate falls, round by round: later populations are better.
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
        """Log q at points (n, k); see `OwnDensity`."""
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
        """The effective share of the last population: near 1 where the flow has its target."""
        return {"population_ess": self._effective}

    def _sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draws from the flow by way of the sampler's own generator."""
        import torch

        base = rng.standard_normal((n, self._dimension))
        if self._flow is None or n == 0:
            return np.asarray(ndtr(base))
        with torch.no_grad():
            z = self._flow().transform.inv(torch.from_numpy(base).float()).numpy()
        z = np.clip(np.nan_to_num(z.astype(np.float64)), -_DEEPEST, _DEEPEST)
        return np.asarray(ndtr(z))


def _build_flow(dimension: int, seed: int, arguments: FlowArguments) -> Any:
    """The flow, with first weights of its own seed and the global generator as it was."""
    try:
        import torch

        flows = import_module("zuko.flows")  # optional, so no type checker may ask for it
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
            # Two passes (coupling) make the inverse as cheap as the forward way.
            passes=min(2, dimension),
        )
    with torch.no_grad():
        # The last layer of each network begins near 0: splines that change nothing.
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
    return np.asarray(np.clip(ndtri(np.clip(unit, EDGE, 1.0 - EDGE)), -_DEEPEST, _DEEPEST))


def build(prior: Prior, seed: int, arguments: FlowArguments, schedule: Schedule) -> MixtureSampler:
    """The `flow` sampler.

    Raises:
        StudyError: zuko is not installed.
    """
    proposer = Flow(prior.unit_dimension, seed, arguments)
    return acquisition_sampler("flow", prior, seed, arguments, proposer, schedule, arguments.beta)

"""`pick_freeze`: groups of simulations from which the Sobol indices of all parameters are estimated.

A group has k + 2 simulations, where k is the number of parameters that vary: A and B are independent points of the
prior, and E_i has the values of A, but that of B for parameter i. The values are exactly equal. The groups follow each
other in the order A, B, E_1 to E_k.

A server rank completes its groups alone, and with R ranks simulation s belongs to rank s mod R. The simulations of R
groups therefore alternate: first A of each, then B of each. With b, p = divmod(s, R (k + 2)), simulation s is member
p div R of group b R + p mod R; with one rank, it is member s mod (k + 2) of group s div (k + 2).

With `base: sobol`, A and B are the two halves of the points of a scrambled Sobol sequence in 2k dimensions, which
reduces the error; it is best balanced if the number of groups is a power of two.

References: Sobol', "Sensitivity estimates for nonlinear mathematical models", 1993; Saltelli, Annoni, Azzini,
Campolongo, Ratto, Tarantola, "Variance based sensitivity analysis of model output", Computer Physics Communications
181 (2010).
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from melissa_gen.errors import StudyError
from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.arguments import Arguments, StudyFacts
from melissa_gen.sampling.base import State
from melissa_gen.sampling.designs.design_sampler import DesignSampler, PointSequence
from melissa_gen.sampling.designs.quasi_random import SobolSequence
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["PickFreezeArguments", "build", "check"]


class PickFreezeArguments(Arguments):
    """Arguments of `pick_freeze`."""

    base: Literal["sobol", "random"] = Field(
        "sobol", description="points A and B: a scrambled Sobol sequence, or independent draws"
    )
    ranks: int = Field(
        1, ge=1, description="groups whose simulations alternate; in a study always `server.ranks`"
    )

    @classmethod
    def completed(cls, given: Mapping[str, Any], facts: StudyFacts) -> dict[str, Any]:
        """Sets `ranks` to the number of server ranks.

        Raises:
            StudyError: The study gives another number.
        """
        ranks = facts.server_ranks
        if given.get("ranks", ranks) != ranks:
            msg = f"sampler.arguments.ranks is {given['ranks']}, but server.ranks is {ranks}; leave it out."
            raise StudyError(msg)
        return {**given, "ranks": ranks}


class _Random(PointSequence):
    def __init__(self, dimension: int, seed: int) -> None:
        self._dimension, self._rng = dimension, np.random.default_rng(seed)

    def draw(self, n: int, generation: int) -> NDArray[np.float64]:
        return self._rng.random((n, self._dimension))

    def state(self) -> State:
        return {"rng": self._rng.bit_generator.state}

    def restore(self, state: State) -> None:
        self._rng.bit_generator.state = state["rng"]


class _Groups(PointSequence):
    """The members of the groups; those of `ranks` groups alternate."""

    def __init__(self, dimension: int, base: PointSequence, ranks: int) -> None:
        self._dimension, self._base, self._ranks = dimension, base, ranks
        self._rest = np.empty((0, dimension))

    def draw(self, n: int, generation: int) -> NDArray[np.float64]:
        missing = max(n - len(self._rest), 0)
        blocks = -(-missing // (self._ranks * (self._dimension + 2)))
        if blocks:
            new = self._members(self._base.draw(blocks * self._ranks, generation))
            self._rest = np.concatenate([self._rest, new])
        drawn, self._rest = self._rest[:n], self._rest[n:]
        return drawn

    def _members(self, pairs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the members (n (k + 2), k) of the groups of pairs (n, 2 k)."""
        k = self._dimension
        a, b = pairs[:, :k], pairs[:, k:]
        members = np.repeat(a[:, None], k + 2, axis=1)
        members[:, 1] = b
        for axis in range(k):
            members[:, 2 + axis, axis] = b[:, axis]
        # Blocks of groups, whose members alternate.
        alternating = members.reshape(len(pairs) // self._ranks, self._ranks, k + 2, k)
        return alternating.swapaxes(1, 2).reshape(len(pairs) * (k + 2), k)

    def state(self) -> State:
        return {"base": self._base.state(), "rest": self._rest.tolist()}

    def restore(self, state: State) -> None:
        self._base.restore(state["base"])
        rest = state["rest"]
        self._rest = np.array(rest, np.float64).reshape(len(rest), self._dimension)


def check(prior: Prior, facts: StudyFacts) -> None:
    """Checks that all groups can be drawn and are complete.

    Raises:
        StudyError: The parameters are not independent, none varies, or the number of simulations is not a multiple of
            k + 2 for each server rank.
    """
    _check_independence(prior)
    if prior.unit_dimension == 0:
        msg = "sampler.method 'pick_freeze' needs a parameter that varies, but all parameters are fixed."
        raise StudyError(msg)
    simulations, ranks = facts.simulations, facts.server_ranks
    size = (prior.unit_dimension + 2) * ranks
    if simulations % size:
        below = simulations - simulations % size
        nearest = f"{below} or {below + size}" if below else f"{size}"
        groups = "a group" if ranks == 1 else f"{ranks} groups, one for each server rank,"
        msg = (
            f"simulation.count {simulations} is not a multiple of {size}, the simulations in {groups} of "
            f"sampler.method 'pick_freeze' (2 and one for each parameter that varies); the nearest legal count is "
            f"{nearest}."
        )
        raise StudyError(msg)


def _check_independence(prior: Prior) -> None:
    if prior.constrained:
        msg = (
            "sampler.method 'pick_freeze' exchanges the values of single parameters, which the constraints do not "
            "allow; remove the constraints, or choose another method."
        )
        raise StudyError(msg)


def build(
    prior: Prior, seed: int, arguments: PickFreezeArguments, schedule: Schedule
) -> DesignSampler:
    """Creates the `pick_freeze` sampler.

    Raises:
        StudyError: There are constraints.
    """
    _check_independence(prior)
    k = prior.unit_dimension
    base = SobolSequence(2 * k, seed) if arguments.base == "sobol" else _Random(2 * k, seed)
    return DesignSampler("pick_freeze", prior, _Groups(k, base, arguments.ranks))

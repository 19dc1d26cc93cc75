"""The queue of proposals for the next simulations, which a thread of the control process keeps filled.

The sampler never blocks the training. If the queue is empty when a client requests a simulation, the client gets a draw
from the prior, which is counted as `late`, or as `paced` if the sampler has used its share of the time. If the sampler
fails, draws from the prior replace its generation, and it tries again at the next one.
"""

import copy
import logging
import math
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling import (
    PRIOR,
    DifficultyTracker,
    Evidence,
    Prior,
    Probe,
    Sampler,
)
from melissa_gen.server.coordination.ledger import FAILED, SimulationRecord
from melissa_gen.server.coordination.proposals import Proposal, SamplerFailure

__all__ = ["ProposalQueue", "known_bytes"]

_log = logging.getLogger(__name__)

Array = NDArray[np.float64]

_ISSUED, _GIVEN_UP = 1, 2
_FREE_SECONDS = 10.0
"""Time that the sampler may compute in any case: in a short run, its first generation is a large share."""
_MOST_GROWTH = 16
_COUNTERS = (
    *("suggested", "adaptive", "late", "paced"),
    *("generations", "failed_generations", "seconds"),
)


class ProposalQueue:
    """Proposals for the next simulations.

    Args:
        sampler: The sampler; only the thread of this queue may use it from now on.
        prior: Prior distribution, for draws when the sampler is late and for the importance weights.
        tracker: Turns first-pass losses into difficulties.
        size: Proposals per generation.
        low: A new generation is created when fewer than this many proposals are left.
        total: Number of simulations of the study.
        importance_exponent: Exponent of (prior / proposal) in the weights.
        seed: Seed of the draws from the prior when the sampler is late.
        event: Writes an event.
        time_share: Largest share of the run time that the sampler computes, after its first seconds. Generations grow
            up to 16-fold for that: the time of a generation hardly depends on its size. Where that is not sufficient,
            the next generation waits.
    """

    def __init__(
        self,
        sampler: Sampler,
        prior: Prior,
        tracker: DifficultyTracker,
        *,
        size: int,
        low: int,
        total: int,
        importance_exponent: float,
        seed: int,
        event: Callable[..., Any],
        time_share: float = 1.0,
    ) -> None:
        self._sampler, self._prior, self._tracker = sampler, prior, tracker
        self._size, self._low, self._total = size, low, total
        self._exponent, self._event = importance_exponent, event
        self._rng = np.random.default_rng([seed, 1])
        self._queue: deque[Proposal] = deque()
        # The simulations that were issued or given up, by number.
        self._known = np.zeros(total, _known_type(prior.dimension))
        self._condition = threading.Condition()
        self._fresh: set[int] = set()
        # A checkpoint must not wait for a generation: it contains the state after the last complete one. After a
        # restart, the sampler learns again from the evidence of the interrupted generation.
        self._learning: set[int] = set()
        self._whole = copy.deepcopy(sampler.state())
        self._closing = False
        self._made = 0
        self.activity = "idle"
        self.suggested = 0
        self.adaptive = 0
        self.late = 0
        self.paced = 0
        self.generations = 0
        self.failed_generations = 0
        self.seconds = 0.0
        self.failure: SamplerFailure | None = None
        self._share, self._began, self._spent, self._last = time_share, time.monotonic(), 0.0, 0.0
        self._taken = 0
        self._probe: Callable[[], Probe | None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    @property
    def uses_surrogate(self) -> bool:
        """Whether the sampler evaluates the surrogate at candidates."""
        return self._sampler.uses_surrogate

    def set_probe(self, probe: Callable[[], Probe | None]) -> None:
        """Sets the function that returns a probe of the surrogate before each learning."""
        self._probe = probe

    @property
    def running(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Creates a generation unless proposals were restored or all were made, and starts the thread.

        If the sampler fails in the first generation of a study, its error is raised, because nothing is lost yet.
        """
        if not self.generations:
            self.make_generation()
        elif not self._queue and self._wanted():
            # The run was extended: its first new points are not left to the prior.
            self._try_generation()
        self._thread.start()

    def make_generation(self) -> None:
        """Learns from new evidence and adds the next generation to the queue; called by the thread."""
        with self._condition:
            evidence = self._evidence()
            self._learning = {one.simulation for one in evidence}
        self._propose(evidence)

    def close(self) -> None:
        """Ends the thread."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def take(self) -> Proposal:
        """Returns the next point without waiting; a draw from the prior if the sampler is late."""
        with self._condition:
            proposal = self._queue.popleft() if self._queue else None
            if not self._taken:
                # Before, the study has waited for validation sets, or for jobs in a scheduler.
                self._began = time.monotonic()
            self._taken += 1
            self._condition.notify()
        if proposal is None:
            if self._rest() > 0.0:
                self.paced += 1
            else:
                self.late += 1
            (proposal,) = self._draw_from_prior(1)
        self.suggested += 1
        self.adaptive += proposal.method != PRIOR
        return proposal

    def add_losses(self, losses: Sequence[Sequence[float]]) -> None:
        """Adds first-pass losses, each (simulation, loss, excess over the mean of its batch).

        Those of simulations that the study does not have are ignored.
        """
        planned = [one for one in losses if one[0] < self._total]
        if planned:
            numbers, values, excess = (np.array(column) for column in zip(*planned, strict=True))
            with self._condition:
                self._tracker.observe(numbers.astype(np.int64), values, excess)

    def register(self, record: SimulationRecord) -> None:
        """Adds a simulation that was issued to a client, has finished, or was given up."""
        with self._condition:
            self._note(record)
            # The report of the end may come after the last loss. Without a loss there is no evidence yet.
            timed = (
                self._sampler.uses_run_times
                and math.isfinite(record.seconds)
                and self._tracker.samples(record.simulation) > 0
            )
            if record.status == FAILED or timed:
                self._fresh.add(record.simulation)

    def difficulty(self, simulation: int) -> float | None:
        """Returns the current difficulty of a simulation, or None if it is unknown."""
        value = self._tracker.difficulty(simulation)
        return value if np.isfinite(value) else None

    def first_passes(self) -> tuple[NDArray[np.int64], Array]:
        """Returns the numbers of the simulations that training has used, and their mean first-pass losses."""
        with self._condition:
            losses = self._tracker.mean_losses()
        known = self._known["state"][: len(losses)] > 0
        numbers = np.flatnonzero(np.isfinite(losses) & known)
        return numbers, losses[numbers]

    def drawn(self, numbers: NDArray[np.int64]) -> tuple[Array, Array]:
        """Returns the points (n, d) of simulations, and their importance weights p/q (n,), 1 where q is unknown."""
        rows = self._known[numbers]
        points = rows["parameters"].copy()
        log_ratio = self._prior.log_density(points) - rows["log_density"]
        return points, np.where(np.isfinite(log_ratio), np.exp(np.minimum(log_ratio, 50.0)), 1.0)

    def state(self) -> dict[str, Any]:
        """Returns the state for a checkpoint, of JSON types and arrays; does not wait for the sampler."""
        with self._condition:
            return {
                "sampler": self._whole,
                "tracker": self._tracker.state(),
                "fresh": sorted(self._fresh | self._learning),
                "queue": [list(proposal) for proposal in self._queue],
                "random": self._rng.bit_generator.state,
                "made": self._made,
                "figures": {key: getattr(self, key) for key in _COUNTERS},
            }

    def restore(self, state: Mapping[str, Any], records: Iterable[SimulationRecord]) -> None:
        """Continues from the `state()` of an earlier server; call it before `start`.

        Args:
            state: The state.
            records: The simulations drawn so far.
        """
        self._whole = state["sampler"]
        self._sampler.restore(copy.deepcopy(self._whole))
        self._tracker.restore(state["tracker"])
        self._fresh = set(state["fresh"])
        self._queue = deque(Proposal(tuple(point), *rest) for point, *rest in state["queue"])
        self._rng.bit_generator.state = state["random"]
        self._made = state["made"]
        for key, value in state["figures"].items():
            setattr(self, key, value)
        for record in records:
            if record.attempts:
                self._note(record)

    def statistics(self) -> dict[str, Any]:
        """Returns the figures of the sampler for status and summary."""
        return {
            "method": self._sampler.name,
            "generation": self._sampler.generation,
            "generations": self.generations,
            "state": self.activity,
            "suggested": self.suggested,
            "adaptive": self.adaptive,
            "late": self.late,
            "paced": self.paced,
            "failed_generations": self.failed_generations,
            "seconds": self.seconds,
        }

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._closing and not (self._wanted() and self._rest() <= 0.0):
                    self.activity = "paced" if self._wanted() else "idle"
                    self._condition.wait(self._rest() if self._wanted() else None)
                if self._closing:
                    return
            self._try_generation()

    def _try_generation(self) -> None:
        try:
            self.make_generation()
        except Exception as error:
            self._fall_back(error)

    def _fall_back(self, error: Exception) -> None:
        """Replaces a generation in which the sampler failed, and resets the sampler to its last complete one."""
        reason = f"{type(error).__name__}: {error}"
        if self.failure is None or self.failure.reason != reason:
            _log.error("the sampler failed", exc_info=error)
        self.failure = SamplerFailure(reason, "".join(traceback.format_exception(error)))
        self.activity = "idle"
        with self._condition:
            self.failed_generations += 1
            self._fresh |= self._learning
            self._learning = set()
            proposals = self._draw_from_prior(self._next_size())
            self._made += len(proposals)
            self._queue.extend(proposals)
        try:
            self._sampler.restore(copy.deepcopy(self._whole))
        except Exception:
            _log.exception("the sampler can't be reset")

    def _draw_from_prior(self, count: int) -> list[Proposal]:
        points = self._prior.sample(count, self._rng)
        densities = self._prior.log_density(points)
        generation = self._sampler.generation
        return [
            Proposal(tuple(point), PRIOR, generation, density, 1.0)
            for point, density in zip(points.tolist(), densities.tolist(), strict=True)
        ]

    def _note(self, record: SimulationRecord) -> None:
        """Writes what the evidence on a simulation will need."""
        density = float("nan") if record.log_density is None else record.log_density
        state = _GIVEN_UP if record.status == FAILED else _ISSUED
        self._known[record.simulation] = (
            record.parameters,
            density,
            record.generation,
            state,
            record.seconds,
        )

    def _evidence(self) -> list[Evidence]:
        """Returns the evidence since the last generation; a simulation that is not known is left for the next one."""
        self._fresh.update(self._tracker.take_changed())
        numbers = sorted(n for n in self._fresh if self._known["state"][n])
        self._fresh.difference_update(numbers)
        return [
            Evidence(
                simulation=n,
                parameters=row["parameters"].copy(),
                difficulty=self._tracker.difficulty(n),
                samples=max(self._tracker.samples(n), 1),
                failed=bool(row["state"] == _GIVEN_UP),
                log_density=float(row["log_density"]),
                generation=int(row["generation"]),
                seconds=float(row["seconds"]),
            )
            for n, row in zip(numbers, self._known[numbers], strict=True)
        ]

    def _wanted(self) -> bool:
        return len(self._queue) < self._low and self._made < self._total

    def _rest(self) -> float:
        """Returns the seconds after which the time that the sampler has computed is its share again; at most 0: now."""
        if self._spent <= _FREE_SECONDS or not self._taken:
            return 0.0
        return (self._spent - _FREE_SECONDS) / self._share - (time.monotonic() - self._began)

    def _next_size(self) -> int:
        """Returns the number of proposals of the next generation, for which the sampler's share of the time is kept."""
        size = self._size
        if self._spent > _FREE_SECONDS and self._taken:
            per_simulation = max((time.monotonic() - self._began) / self._taken, 1e-9)
            wanted = math.ceil(self._last / (self._share * per_simulation))
            size = min(max(wanted, size), _MOST_GROWTH * size)
        return min(size, self._total - self._made)

    def _propose(self, evidence: list[Evidence]) -> None:
        """Makes the next generation, and measures its time, also if the sampler fails."""
        worked = time.thread_time()
        try:
            self._learn_and_suggest(evidence)
        finally:
            # CPU time is measured, because waiting does not take time from the trainer's core.
            self._last = time.thread_time() - worked
            self._spent += self._last
            self.seconds += self._last

    def _learn_and_suggest(self, evidence: list[Evidence]) -> None:
        began, count = time.perf_counter(), self._next_size()
        # The lock is not held here: the call waits for the trainer, which may wait for the lock.
        probe = self._probe() if self.uses_surrogate else None
        self.activity = "learning"
        if probe is not None:
            self._sampler.observe(probe)
        self._sampler.ingest(evidence)
        self._sampler.update()
        self.activity = "proposing"
        found = self._sampler.suggest(count)
        if not np.isfinite(found.points).all():
            msg = "the sampler proposed parameters that are not finite"
            raise ValueError(msg)
        diagnostics = self._sampler.diagnostics()
        whole = copy.deepcopy(self._sampler.state())
        prior = self._prior.log_density(found.points)
        proposals = []
        for point, density, base, method in zip(
            found.points.tolist(),
            found.log_density.tolist(),
            prior.tolist(),
            found.method,
            strict=True,
        ):
            known = np.isfinite(density)
            weight = float(np.exp(self._exponent * (base - density))) if known else 1.0
            proposals.append(
                Proposal(tuple(point), method, found.generation, density if known else None, weight)
            )
        with self._condition:
            self.generations += 1
            self._made += len(proposals)
            self._queue.extend(proposals)
            self._whole, self._learning = whole, set()
        self.activity = "idle"
        self._event(
            "generation",
            generation=found.generation,
            suggested=len(proposals),
            adaptive=sum(p.method != PRIOR for p in proposals),
            late=self.late,
            paced=self.paced,
            seconds=time.perf_counter() - began,
            diagnostics=diagnostics,
        )


def known_bytes(parameters: int) -> int:
    """Returns the memory of a simulation in a `ProposalQueue`, without the sampler and the tracker (bytes)."""
    return _known_type(parameters).itemsize


def _known_type(parameters: int) -> "np.dtype[np.void]":
    return np.dtype(
        [
            ("parameters", np.float64, (parameters,)),
            ("log_density", np.float64),
            ("generation", np.int32),
            ("state", np.uint8),
            ("seconds", np.float32),
        ]
    )

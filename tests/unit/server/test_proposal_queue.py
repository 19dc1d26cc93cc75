import json
import threading

import numpy as np
import pytest

from melissa_gen.sampling import PRIOR, DifficultyTracker, Prior, Proposals, Sampler, create
from melissa_gen.server.coordination.ledger import FAILED, FINISHED, Ledger, SimulationRecord
from melissa_gen.server.coordination.proposal_queue import ProposalQueue
from tests.conftest import wait_for


class GatedSampler(Sampler):
    """Proposes the number of its generation, and waits while its gate is closed."""

    uses_run_times = False

    def __init__(self, prior):
        super().__init__("test", prior)
        self.evidence = []
        self.gate = threading.Event()
        self.gate.set()
        self.fail = False
        self.learned = threading.Event()

    def suggest(self, n):
        points = np.full((n, 1), 0.1 * self.generation)
        return Proposals(
            points, np.full(n, np.log(2.0)), ["test"] * n, self.generation, np.full(n, -1)
        )

    def ingest(self, evidence):
        self.evidence.append(list(evidence))

    def update(self):
        self.learned.set()
        assert self.gate.wait(10)
        if self.fail:
            raise RuntimeError("no convergence")
        self.generation += 1

    def state(self):
        return {}

    def restore(self, state):
        pass

    def diagnostics(self):
        return {"loss": 0.5}


class Events:
    """The event log; lets a test wait for the next generation."""

    def __init__(self):
        self.generations = []
        self.made = threading.Semaphore(0)

    def __call__(self, event, **fields):
        self.generations.append(fields)
        self.made.release()
        return {"event": event, **fields}

    def wait(self):
        assert self.made.acquire(timeout=10)


@pytest.fixture
def sampler():
    prior = Prior.from_mapping({"a": {"distribution": "uniform", "low": 0.0, "high": 1.0}})
    return GatedSampler(prior)


@pytest.fixture
def events():
    return Events()


@pytest.fixture
def queue(sampler, events):
    queue = ProposalQueue(
        sampler,
        sampler.prior,
        DifficultyTracker("loss"),
        size=3,
        low=1,
        total=100,
        importance_exponent=1.0,
        seed=7,
        event=events,
    )
    yield queue
    sampler.gate.set()
    queue.close()
    assert not queue.running


def test_proposals_carry_method_density_and_weight(queue, events):
    queue.start()
    proposal = queue.take()
    assert (proposal.method, proposal.generation) == ("test", 1)
    assert proposal.log_density == pytest.approx(np.log(2.0))
    assert proposal.weight == pytest.approx(0.5)  # prior density 1 over proposal density 2
    assert events.generations[0]["suggested"] == 3


def test_a_late_sampler_is_replaced_by_the_prior_and_counted(queue, sampler, events):
    queue.start()
    events.wait()
    sampler.gate.clear()
    points = [queue.take() for _ in range(6)]
    assert [p.method for p in points] == ["test"] * 3 + [PRIOR] * 3
    assert all(sampler.prior.contains(np.array([p.parameters]))[0] for p in points)
    assert all(p.log_density == pytest.approx(0.0) and p.weight == 1.0 for p in points[3:])
    figures = queue.statistics()
    assert (figures["late"], figures["suggested"], figures["adaptive"]) == (3, 6, 3)
    sampler.gate.set()
    events.wait()
    assert queue.take().generation == 2


def test_draws_from_the_prior_replace_a_generation_in_which_the_sampler_fails(
    queue, sampler, events
):
    queue.start()
    events.wait()
    queue.register(SimulationRecord(0, (0.25,), "test", 0, None))
    queue.add_losses([[0, 0.5, 0.0]])
    sampler.fail = True
    for failures in range(1, 3):
        assert {queue.take().method for _ in range(3)} == ({"test"} if failures == 1 else {PRIOR})
        wait_for(lambda n=failures: queue.statistics()["failed_generations"] == n, "a failure", 10)
    assert queue.failure.reason == "RuntimeError: no convergence"
    assert "in update" in queue.failure.traceback
    sampler.fail = False
    assert {queue.take().method for _ in range(3)} == {PRIOR}
    events.wait()
    assert queue.take().method == "test"
    figures = queue.statistics()
    assert (figures["late"], figures["failed_generations"], figures["generations"]) == (0, 2, 2)
    # Each attempt gets the evidence that the failed ones have not learned from.
    assert [[one.simulation for one in given] for given in sampler.evidence] == [[], [0], [0], [0]]


def test_parameters_that_are_not_finite_are_a_failure_of_the_sampler(queue, sampler, events):
    queue.start()
    events.wait()
    sampler.generation = float("nan")
    assert {queue.take().method for _ in range(3)} == {"test"}
    wait_for(lambda: queue.failure is not None, "a failure", 10)
    assert queue.failure.reason.endswith("proposed parameters that are not finite")
    assert np.isfinite(queue.take().parameters).all()


def test_evidence_reaches_the_sampler_with_where_it_came_from(queue, sampler, events):
    queue.start()
    events.wait()
    easy = SimulationRecord(0, (0.25,), "test", 4, None)
    easy.issued_at = 100.0
    bad = SimulationRecord(1, (0.75,), PRIOR, 0, -0.5, status=FAILED)
    queue.register(easy)
    queue.register(bad)
    easy.status, easy.finished_at = FINISHED, 112.5
    queue.register(easy)
    queue.add_losses([[0, 0.5, 0.0], [0, 0.5, 0.0]])
    queue.add_losses([])
    for _ in range(3):
        queue.take()
    events.wait()
    assert sampler.evidence[0] == []
    found = {e.simulation: e for e in sampler.evidence[1]}
    assert set(found) == {0, 1}
    assert found[0].parameters.tolist() == [0.25]
    assert (found[0].samples, found[0].generation, found[0].failed) == (2, 4, False)
    assert found[0].difficulty == pytest.approx(1.0)
    assert np.isnan(found[0].log_density)
    assert found[0].seconds == 12.5 and np.isnan(found[1].seconds)
    assert found[1].failed
    assert found[1].log_density == -0.5
    assert queue.difficulty(0) == pytest.approx(1.0)
    assert queue.difficulty(1) is None


def test_losses_of_an_unknown_simulation_are_kept(queue, sampler, events):
    queue.start()
    events.wait()
    queue.add_losses([[0, 0.5, 0.0]])
    for _ in range(3):
        queue.take()
    events.wait()
    assert sampler.evidence[1] == []
    queue.register(SimulationRecord(0, (0.25,), "test", 1, None))
    for _ in range(3):
        queue.take()
    events.wait()
    assert [e.simulation for e in sampler.evidence[2]] == [0]


def test_losses_of_simulations_that_the_study_does_not_have_are_ignored(queue):
    queue.start()
    queue.add_losses([[2**62, 0.5, 0.0], [0, 0.5, 0.0]])
    assert queue.difficulty(0) is not None


def test_a_failed_simulation_is_announced_once(queue, sampler, events):
    queue.register(SimulationRecord(1, (0.75,), PRIOR, 0, -0.5, status=FAILED))
    for _ in range(3):
        queue.make_generation()
    assert [[e.simulation for e in found] for found in sampler.evidence] == [[1], [], []]


class Looking(GatedSampler):
    """A sampler that uses a probe of the surrogate."""

    uses_surrogate = True

    def __init__(self, prior):
        super().__init__(prior)
        self.seen = []

    def observe(self, probe):
        self.seen.append(probe)


def test_the_sampler_gets_the_surrogate_before_each_update(sampler, events):
    looking = Looking(sampler.prior)
    queue = ProposalQueue(
        looking,
        sampler.prior,
        DifficultyTracker("loss"),
        size=1,
        low=1,
        total=3,
        importance_exponent=0.0,
        seed=7,
        event=events,
    )
    assert queue.uses_surrogate
    surrogates = iter([None, "first", "second"])
    queue.set_probe(lambda: next(surrogates))
    queue.start()
    for _ in range(3):
        events.wait()
        queue.take()
    queue.close()
    assert looking.seen == ["first", "second"]
    assert looking.generation == 3


def uniform_queue(prior, events):
    return ProposalQueue(
        create("diffusion_posterior", prior, 7, 0.9, 2, {"steps": 8}),
        prior,
        DifficultyTracker("loss"),
        size=3,
        low=1,
        total=100,
        importance_exponent=1.0,
        seed=7,
        event=events,
    )


def feed(queue, ledger, count, first=0):
    points = []
    for number in range(first, first + count):
        proposal = queue.take()
        record = ledger.add(*proposal)
        ledger.issue(record, "client-0", 1.0)
        queue.register(record)
        queue.add_losses([[number, 1.0 + number % 5, 0.5]])
        points.append(proposal)
    return points


def test_the_next_server_continues_the_proposals(sampler):
    prior, ledger = sampler.prior, Ledger(100, 1, 0)
    first = uniform_queue(prior, Events())
    first.make_generation()
    feed(first, ledger, 2)
    state = json.loads(json.dumps(first.state(), default=as_list), object_hook=as_array)
    second, ledger_2 = uniform_queue(prior, Events()), Ledger(100, 1, 0)
    ledger_2.restore(ledger.state())
    second.restore(state, ledger_2.records)
    for queue in (first, second):
        queue.make_generation()
    theirs = [second.take() for _ in range(4)]
    assert theirs == [first.take() for _ in range(4)]
    assert second.statistics() == first.statistics() | {"seconds": second.seconds}
    assert second.statistics()["generations"] == 2


def as_list(array):
    return {"list": array.tolist(), "dtype": str(array.dtype), "shape": array.shape}


def as_array(value):
    if set(value) != {"list", "dtype", "shape"}:
        return value
    return np.array(value["list"], value["dtype"]).reshape(value["shape"])


def test_a_checkpoint_does_not_wait_for_a_generation_and_loses_none_of_its_evidence(
    queue, sampler, events
):
    queue.start()
    events.wait()
    queue.register(SimulationRecord(0, (0.25,), "test", 0, None))
    queue.add_losses([[0, 0.5, 0.0]])
    sampler.gate.clear()
    sampler.learned.clear()
    points = [queue.take() for _ in range(3)]
    assert sampler.learned.wait(10)
    state = queue.state()
    assert state["fresh"] == [0]
    assert (state["made"], state["queue"]) == (3, [])
    sampler.gate.set()
    events.wait()
    after = queue.state()
    assert (after["fresh"], after["made"], len(after["queue"])) == ([], 6, 3)
    assert points


def test_there_are_at_most_as_many_generations_as_simulations(sampler, events):
    queue = ProposalQueue(
        sampler,
        sampler.prior,
        DifficultyTracker("loss"),
        size=3,
        low=2,
        total=4,
        importance_exponent=0.0,
        seed=7,
        event=events,
    )
    queue.start()
    events.wait()
    for _ in range(3):
        queue.take()
    events.wait()
    queue.take()
    queue.close()
    assert [g["suggested"] for g in events.generations] == [3, 1]


def test_first_passes_keep_the_mean_loss_and_the_weight_of_each_simulation(queue):
    queue.register(SimulationRecord(0, (0.25,), "test", 1, float(np.log(2.0))))
    queue.register(SimulationRecord(1, (0.5,), "ogas", 1, None))
    queue.register(SimulationRecord(2, (0.75,), PRIOR, 0, 0.0))
    queue.add_losses([[0, 0.5, 0.0], [0, 1.5, 0.0], [1, 4.0, 0.0], [3, 1.0, 0.0]])
    numbers, losses = queue.first_passes()
    # Simulation 2 was not trained yet, and simulation 3 was not issued.
    assert numbers.tolist() == [0, 1] and losses.tolist() == [1.0, 4.0]
    points, weights = queue.drawn(numbers)
    assert points.tolist() == [[0.25], [0.5]] and weights.tolist() == [pytest.approx(0.5), 1.0]


@pytest.mark.parametrize("uses_run_times", [True, False])
def test_a_run_time_that_is_known_after_the_last_loss_is_evidence_where_it_has_an_effect(
    queue, sampler, uses_run_times
):
    sampler.uses_run_times = uses_run_times
    records = [SimulationRecord(n, (0.25,), "test", 1, None, issued_at=10.0) for n in range(2)]
    for record in records:
        queue.register(record)
    queue.add_losses([[0, 0.5, 0.0]])
    queue.make_generation()
    for record in records:
        record.status, record.finished_at = FINISHED, 14.0
        queue.register(record)
    queue.make_generation()
    # No sample of simulation 1 was trained, so that there is nothing to learn from it.
    known = [[(one.simulation, one.seconds) for one in given] for given in sampler.evidence]
    assert known == [
        [(0, pytest.approx(np.nan, nan_ok=True))],
        [(0, 4.0)] if uses_run_times else [],
    ]


class Clock:
    """Stands for the module `time`; learning takes 6 s."""

    def __init__(self):
        self.now = self.worked = 0.0

    def monotonic(self):
        return self.now

    perf_counter = monotonic

    def thread_time(self):
        return self.worked


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("melissa_gen.server.coordination.proposal_queue.time", clock)
    return clock


@pytest.fixture
def slow_queue(sampler, events, clock):
    """A queue whose sampler may learn in a tenth of the time."""
    learn = sampler.update

    def slow():
        clock.worked += 6.0
        learn()

    sampler.update = slow
    queue = ProposalQueue(
        sampler,
        sampler.prior,
        DifficultyTracker("loss"),
        size=3,
        low=1,
        total=100,
        importance_exponent=1.0,
        seed=7,
        event=events,
        time_share=0.1,
    )
    yield queue
    queue.close()


@pytest.mark.parametrize(
    ("per_simulation", "sizes"),
    # 6 s are a tenth of the time of 6, 0.6 and 600 simulations; generations grow 16-fold at most.
    [(10.0, [3, 3, 6]), (100.0, [3, 3, 3]), (0.1, [3, 3, 48])],
)
def test_generations_of_a_slow_sampler_grow_until_its_share_of_the_time_is_kept(
    slow_queue, clock, events, per_simulation, sizes
):
    queue = slow_queue
    for size in sizes:
        queue.make_generation()
        for _ in range(size):
            queue.take()
            clock.now += per_simulation
    assert [made["suggested"] for made in events.generations] == sizes
    assert queue.statistics()["seconds"] == 18.0


def test_a_generation_that_fails_counts_in_the_share_of_the_time_and_its_replacement_grows(
    slow_queue, sampler, clock
):
    slow_queue.start()
    sampler.fail = True
    assert slow_queue.take().method == "test"
    clock.now = 30.0
    assert {slow_queue.take().method for _ in range(2)} == {"test"}
    wait_for(lambda: slow_queue.statistics()["failed_generations"] == 1, "a failure", 10)
    assert slow_queue.statistics()["seconds"] == 12.0
    # 6 s are a tenth of the time of 6 simulations of 10 s.
    clock.now = 60.0
    assert {slow_queue.take().method for _ in range(6)} == {PRIOR}
    assert slow_queue.statistics()["late"] == 0


def test_a_sampler_whose_share_of_the_time_is_used_waits_and_says_so(slow_queue, clock, events):
    slow_queue.start()
    for _ in range(2):
        events.wait()
        for _ in range(3):
            slow_queue.take()
            clock.now += 0.1
    # Of 12 s, 10 s are free, so that 20 s must pass.
    wait_for(lambda: slow_queue.statistics()["state"] == "paced", "the pause", 10)
    assert slow_queue.take().method == PRIOR
    figures = slow_queue.statistics()
    assert (figures["generations"], figures["paced"], figures["late"]) == (2, 1, 0)
    clock.now = 20.0
    slow_queue.take()
    events.wait()
    assert slow_queue.statistics()["generations"] == 3
    assert [event["paced"] for event in events.generations] == [0, 0, 1]

"""Each server rank receives a bounded number of simulations at the same time, and no client waits in vain."""

from collections import Counter, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melissa_gen.protocol import wire
from melissa_gen.protocol.failures import Failure
from melissa_gen.server.coordination.credit_pool import CreditPool
from melissa_gen.server.coordination.events import (
    AttemptReport,
    ClientAsks,
    ClientFailed,
    ClientHello,
    JobEnded,
    LauncherHello,
    Moment,
    RankHello,
    RankReport,
    SendClient,
    StopRequested,
    Tick,
)
from melissa_gen.server.coordination.ledger import Ledger
from melissa_gen.server.coordination.machine import ControlMachine
from melissa_gen.server.coordination.proposals import Proposal
from melissa_gen.server.coordination.settings import (
    UNLIMITED,
    ControlSettings,
    ControlTimeouts,
    control_settings,
)
from melissa_gen.study import load_study
from tests.unit.small_study import write_small_study

RANKS, PLACES, STEPS = 3, 2, 4
WELCOME = wire.Welcome(
    *(4, 1, RANKS, STEPS, 0.05, 1.0, 20.0),
    (wire.StudyParameter("a"),),
    (wire.StudyField("u", "float32", (3,)),),
)


class Points:
    """Simulation n is solved for n."""

    failure = None

    def __init__(self):
        self.taken = 0

    def take(self):
        self.taken += 1
        return Proposal((float(self.taken - 1),), "prior")

    def register(self, record):
        pass

    def add_losses(self, losses):
        pass

    def statistics(self):
        return {}


class Run:
    """A machine, and clients of which each solves one simulation after the other; none solves faster than told to."""

    def __init__(self, count, clients=12, *, per_simulation=False):
        times = ControlTimeouts(heartbeat=1e9, exit_grace=0.0)
        settings = ControlSettings(WELCOME, 1, clients, per_simulation, times, 10**9, PLACES)
        self.ledger = Ledger(count, STEPS, 10**9)
        self.machine = ControlMachine(settings, self.ledger, Points())
        self.now, self.named = 0.0, per_simulation
        # What each living client solves, and those that wait for an answer, in the order of their requests.
        self.solving, self.waiting, self.answers = {}, deque(), {}
        for event in (*map(RankHello, range(RANKS)), LauncherHello()):
            self.handle(event)

    def handle(self, event):
        for action in self.machine.handle(event, Moment(self.now, self.now)):
            if isinstance(action, SendClient) and isinstance(
                action.message, wire.Solve | wire.Done | wire.Stop
            ):
                self._take(action.client.decode(), action.message)

    def _take(self, job, answer):
        if isinstance(answer, wire.Solve):
            assert self.waiting[0] == job or self.named, "first come, first served"
            self.solving[job] = answer
        self.waiting.remove(job)
        self.answers[job] = answer

    def ask(self, job, simulation=wire.ANY):
        self.waiting.append(job)
        self.handle(ClientAsks(job.encode(), simulation))

    def join(self, job, simulation=wire.ANY):
        self.handle(ClientHello(job.encode(), job, "node", 1, 1))
        self.ask(job, simulation)

    def finish(self, job):
        """The owner has stored the samples of what a client has solved, and the client asks again."""
        done = self.solving.pop(job)
        report = AttemptReport(done.simulation, done.attempt, STEPS, STEPS)
        self.handle(RankReport(wire.owner(done.simulation, RANKS), finalized=(report,)))
        self.ask(job)

    def give_up(self, job):
        failed = self.solving.pop(job)
        failure = Failure.of("given_up", text="the mesh is tangled")
        self.handle(ClientFailed(job, failed.simulation, failed.attempt, failure))
        self.ask(job)

    def die(self, job, code=9):
        self.solving.pop(job, None)
        if job in self.waiting:
            self.waiting.remove(job)
        self.handle(JobEnded(job, code))
        self.now += 1.0
        self.handle(Tick({}))

    def check(self):
        held = Counter(wire.owner(one.simulation, RANKS) for one in self.ledger.running())
        assert all(number <= PLACES for number in held.values())
        if self.waiting:
            drawn, count = self.ledger.drawn, self.ledger.count
            left = [*self.ledger.waiting_numbers(), *range(drawn, count)]
            ready = {wire.owner(one, RANKS) for one in left}
            assert all(held[rank] == PLACES for rank in ready), "a client waits in vain"


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["join", "join", "join", "finish", "finish", "die", "leave", "give up"]),
        st.integers(0, 30),
    ),
    max_size=80,
)


@given(EVENTS, st.integers(3, 40))
def test_no_arrival_death_or_slow_client_exceeds_a_pool_or_leaves_others_waiting(history, count):
    run, started = Run(count), 0
    for kind, which in history:
        alive = sorted(run.solving.keys() | set(run.waiting))
        at_work = sorted(run.solving)
        if kind == "join":
            run.join(f"client-{started}")
            started += 1
        elif kind in ("die", "leave") and alive:
            run.die(alive[which % len(alive)], 9 if kind == "die" else 0)
        elif kind == "finish" and at_work:
            run.finish(at_work[which % len(at_work)])
        elif kind == "give up" and at_work:
            run.give_up(at_work[which % len(at_work)])
        run.check()
    # The clients that have not finished anything so far were slow. A last one comes for what the dead have left.
    run.join("last")
    while run.solving:
        run.finish(min(run.solving))
        run.check()
    assert not run.waiting and isinstance(run.answers["last"], wire.Done)
    run.handle(Tick({}))
    assert run.ledger.unfinished == 0


def test_slow_clients_keep_a_fast_one_from_nothing():
    run = Run(60)
    for number in range(RANKS * PLACES - 1):
        run.join(f"slow-{number}")
    run.join("fast")
    for _ in range(10):
        run.finish("fast")
        assert run.solving["fast"]


def test_a_client_that_waits_gets_the_place_of_one_that_dies():
    run = Run(60)
    for number in range(RANKS * PLACES):
        run.join(f"slow-{number}")
    run.join("waits")
    assert list(run.waiting) == ["waits"]
    lost = run.solving["slow-3"]
    run.die("slow-3")
    again = run.answers["waits"]
    assert (again.simulation, again.attempt) == (lost.simulation, lost.attempt + 1)


def test_a_dead_client_gets_no_place():
    run = Run(60)
    for number in range(RANKS * PLACES):
        run.join(f"slow-{number}")
    run.join("dies")
    run.die("dies")
    run.join("waits")
    run.finish("slow-0")
    assert "dies" not in run.answers and isinstance(run.answers["waits"], wire.Solve)


def test_jobs_for_given_simulations_wait_for_their_own_server_rank_alone():
    run = Run(30, clients=20, per_simulation=True)
    for simulation in (0, 3):
        run.join(f"job-{simulation}", simulation)
    run.join("job-6", 6)
    run.join("job-1", 1)
    assert list(run.waiting) == ["job-6"] and run.solving["job-1"].simulation == 1
    run.finish("job-0")
    assert run.solving["job-6"].simulation == 6


def test_a_stop_answers_the_clients_that_wait():
    run = Run(60)
    for number in range(RANKS * PLACES + 2):
        run.join(f"client-{number}")
    assert len(run.waiting) == 2
    run.handle(StopRequested("enough"))
    assert not run.waiting
    assert isinstance(run.answers[f"client-{RANKS * PLACES}"], wire.Stop)


def test_a_place_that_is_not_there_is_an_error():
    pool = CreditPool(2, 1)
    pool.take(0)
    assert not pool.has_place(2) and pool.has_place(1)
    with pytest.raises(ValueError, match="simulation 2 can't have a place at server rank 0"):
        pool.take(2)
    pool.give_back(0)
    pool.give_back(0)
    assert pool.has_place(2) and not pool.exhausted


@pytest.mark.parametrize(
    ("clients", "ranks", "places"),
    [(2, 2, UNLIMITED), (300, 1, UNLIMITED), (300, 8, 78), (10_000, 64, 316)],
)
def test_there_are_places_for_twice_the_clients_of_a_rank(tmp_path, clients, ranks, places):
    changes = [
        f"launcher.clients={clients}",
        f"server.ranks={ranks}",
        "simulation.count=20000",
    ]
    study = load_study(write_small_study(tmp_path / "study"), changes)
    assert control_settings(study).places == places
    assert study.senders == min(clients, places)

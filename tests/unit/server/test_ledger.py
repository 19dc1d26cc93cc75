"""The ledger of simulations: each ends exactly once, whatever happens to its attempts."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from melissa_gen.protocol import wire
from melissa_gen.protocol.failures import Failure
from melissa_gen.server.coordination.ledger import (
    FAILED,
    FINISHED,
    RUNNING,
    WAITING,
    Ledger,
    most_attempts,
)
from melissa_gen.server.coordination.simulation_table import row_bytes

DIED = Failure.of("process_ended", exit_status=9)

COUNT, STEPS = 4, 6


class LedgerMachine(RuleBasedStateMachine):
    """Drives a ledger with reports that may be stale, repeated or contradictory."""

    attempts = Bundle("attempts")

    @initialize(retries=st.integers(0, 2))
    def begin(self, retries):
        self.retries = retries
        self.ledger = Ledger(COUNT, STEPS, retries)
        self.ends = Counter()
        self.now = 0.0
        self.jobs = 0

    def settle(self, outcome, simulation, attempt, before):
        self.now += 1.0
        if outcome is None:
            return
        record = outcome.record
        assert before == RUNNING  # a stale report changes nothing
        assert (record.simulation, record.attempt) == (simulation, attempt)
        assert outcome.finished != outcome.failed
        if outcome.finished or outcome.dropped:
            self.ends[simulation] += 1
            assert record.finished_at is not None
        else:
            assert record.status == WAITING
            assert record is self.ledger.waiting()[0]  # it is tried again first
        if outcome.failed:
            assert outcome.failure is record.failure

    def status(self, simulation, attempt):
        record = self.ledger.current(simulation, attempt)
        return None if record is None else record.status

    @precondition(lambda self: self.ledger.drawn < COUNT)
    @rule()
    def draw(self):
        record = self.ledger.add((float(self.ledger.drawn),), "prior", 0, 0.0)
        assert record.status == WAITING

    @precondition(lambda self: self.ledger.waiting())
    @rule(target=attempts, data=st.data())
    def issue(self, data):
        record = data.draw(st.sampled_from(self.ledger.waiting()))
        job = f"client-{self.jobs}"
        self.jobs += 1
        parameters = record.parameters
        attempt = self.ledger.issue(record, job, self.now)
        assert record.parameters == parameters == (float(record.simulation),)
        assert attempt == record.attempts - 1
        assert self.ledger.of_job(job) == [record]
        return record.simulation, attempt

    @rule(
        which=attempts,
        steps=st.integers(STEPS - 1, STEPS),
        complete=st.integers(STEPS - 1, STEPS),
    )
    def report(self, which, steps, complete):
        before = self.status(*which)
        outcome = self.ledger.finalized(*which, steps, complete, self.now)
        self.settle(outcome, *which, before)
        if outcome is not None and outcome.finished:
            assert steps == STEPS
            assert outcome.record.samples == STEPS

    @rule(which=attempts)
    def complete(self, which):
        self.report(which, STEPS, STEPS)

    @rule(which=attempts, retry=st.booleans())
    def fail(self, which, retry):
        before = self.status(*which)
        outcome = self.ledger.failed(*which, DIED, self.now, retry=retry)
        self.settle(outcome, *which, before)
        if outcome is not None and not retry:
            assert outcome.dropped

    @precondition(lambda self: self.ledger.drawn)
    @rule(target=attempts, data=st.data())
    def never_started(self, data):
        simulation = data.draw(st.integers(0, self.ledger.drawn - 1))
        waits = self.ledger.records[simulation].status == WAITING
        outcome = self.ledger.never_started(simulation, DIED, self.now)
        assert (outcome is not None) == waits
        if outcome is None:
            return multiple()
        attempt = outcome.record.attempt
        self.settle(outcome, simulation, attempt, RUNNING)
        return simulation, attempt

    @rule(simulation=st.sampled_from([-1, COUNT, 10**9]), attempt=st.integers(0, 3))
    def report_of_nothing(self, simulation, attempt):
        assert self.ledger.finalized(simulation, attempt, STEPS, STEPS, self.now) is None
        assert self.ledger.failed(simulation, attempt, DIED, self.now, retry=True) is None

    @invariant()
    def counts_add_up(self):
        if not hasattr(self, "ledger"):
            return
        counts = self.ledger.counts()
        states = ("waiting", "running", "completed", "failed")
        assert counts["planned"] == COUNT == sum(counts[s] for s in states)
        assert counts["completed"] + counts["failed"] == sum(self.ends.values())
        assert self.ledger.unfinished == COUNT - sum(self.ends.values())
        assert all(n == 1 for n in self.ends.values())
        for record in self.ledger.records:
            assert record.attempts <= self.retries + 1
            assert (record.status in (FINISHED, FAILED)) == (record.simulation in self.ends)
        waiting = self.ledger.waiting()
        assert len(set(map(id, waiting))) == len(waiting)
        assert {r.simulation for r in waiting} == {
            r.simulation for r in self.ledger.records if r.status == WAITING
        }
        completed = [r for r in self.ledger.records if r.status == FINISHED]
        assert counts["completed"] == len(completed)
        assert counts["retried"] == sum(max(r.attempts - 1, 0) for r in self.ledger.records)

    @invariant()
    def the_next_server_knows_the_same(self):
        if not hasattr(self, "ledger"):
            return
        other = Ledger(COUNT, STEPS, self.retries)
        running = {r.simulation for r in self.ledger.running()}
        assert other.restore(self.ledger.state()) == len(running)
        for mine, theirs in zip(self.ledger.records, other.records, strict=True):
            if mine.simulation not in running:
                assert mine.line((wire.StudyParameter("a"),), None) == theirs.line(
                    (wire.StudyParameter("a"),), None
                )
        counts = self.ledger.counts()
        counts["waiting"] += counts["running"]
        assert other.counts() == counts | {"running": 0, "retried": other.counts()["retried"]}


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.fixture
def ledger():
    ledger = Ledger(2, STEPS, retries=1)
    ledger.add((1.0, 2.0), "prior", 0, -1.5)
    ledger.add((3.0, 4.0), "diffusion_posterior", 1, None)
    return ledger


def run(ledger, record, steps=STEPS, complete=STEPS, now=7.0):
    return ledger.finalized(record.simulation, record.attempt, steps, complete, now)


def test_a_simulation_cut_short_is_not_tried_again(ledger):
    record = ledger.records[0]
    ledger.issue(record, "client-0", 1.0)
    outcome = run(ledger, record, steps=4, complete=2)
    assert outcome.dropped
    assert outcome.failure.sentence == "simulation 0 ended after 4 of 6 time steps"
    assert (record.failure.code, record.failure.values["steps"]) == ("too_few_steps", 4)


def test_samples_that_did_not_arrive_are_tried_again(ledger):
    record = ledger.records[0]
    ledger.issue(record, "client-0", 1.0)
    outcome = run(ledger, record, complete=4)
    assert not outcome.dropped
    assert outcome.failure.sentence == "only 4 of 6 time steps arrived completely"
    ledger.issue(record, "client-1", 2.0)
    assert run(ledger, record).finished
    assert ledger.counts()["retried"] == 1


def test_the_ranks_accept_every_attempt_that_is_issued(ledger):
    """Attempts that ended because of another simulation use no retries, but have numbers."""
    record, outcome, issued = ledger.records[0], None, []
    while outcome is None or not outcome.dropped:
        ledger.issue(record, "client-0", 1.0)
        issued.append(record.attempt)
        outcome = ledger.failed(0, record.attempt, DIED, 2.0, retry=True, charged=False)
    assert len(issued) > 50, "it is not dropped for the faults of others"
    assert max(issued) < most_attempts(retries=1, epoch=0)


def test_a_job_can_have_two_open_simulations(ledger):
    ledger.issue(ledger.records[1], "client-0", 1.0)
    ledger.issue(ledger.records[0], "client-0", 2.0)
    assert [r.simulation for r in ledger.of_job("client-0")] == [1, 0]
    assert ledger.of_job("client-1") == []


def test_line(ledger):
    record = ledger.records[1]
    ledger.issue(record, "client-0", 1.0)
    run(ledger, record)
    line = record.line((wire.StudyParameter("a", "integer"), wire.StudyParameter("b")), 0.5)
    assert json.dumps(line["parameters"]) == '{"a": 3, "b": 4.0}'
    assert (line["status"], line["attempts"], line["finished_at"]) == (FINISHED, 1, 7.0)
    assert (line["log_density"], line["difficulty"], line["reason"]) == (None, 0.5, None)


def test_reading_all_records_gives_what_reading_each_gives():
    ledger = Ledger(count=5_000, time_steps=1, retries=0)
    for number in range(ledger.count):
        record = ledger.add((float(number), 1.0), "prior", number // 7, 0.5)
        if number % 3:
            ledger.issue(record, "client-0", 1.0)
        if number % 3 == 2:
            ledger.finalized(number, 0, 1, 1, 2.0)
    assert list(ledger.records) == [ledger.records[number] for number in range(ledger.count)]


def test_running_simulations_are_repeated_by_the_next_server_without_using_retries():
    first = Ledger(count=4, time_steps=2, retries=0)
    for n in range(3):
        first.add((float(n),), "prior", 0, None)
    done, under_way, _ = first.records
    first.issue(done, "client-0", 1.0)
    first.finalized(0, 0, 2, 2, 2.0)
    first.issue(under_way, "client-1", 3.0)
    second = Ledger(count=4, time_steps=2, retries=0)
    assert second.restore(first.state()) == 1
    kept = second.records[0]
    assert (kept.status, kept.attempts, kept.samples) == (FINISHED, 1, 2)
    assert [r.simulation for r in second.waiting()] == [1, 2]
    again = second.records[1]
    assert (again.parameters, again.job) == ((1.0,), None)
    assert second.issue(again, "client-2", 4.0) == 1
    assert second.counts()["retried"] == 0
    outcome = second.failed(1, 1, DIED, 5.0, retry=True)
    assert outcome.dropped, "its one try is used up"


def test_an_attempt_that_failed_by_itself_still_counts_after_a_restart():
    first = Ledger(count=1, time_steps=2, retries=1)
    record = first.add((0.0,), "prior", 0, None)
    first.issue(record, "client-0", 1.0)
    assert not first.failed(0, 0, DIED, 2.0, retry=True).dropped
    first.issue(record, "client-1", 3.0)
    second = Ledger(count=1, time_steps=2, retries=1)
    second.restore(first.state())
    again = second.records[0]
    assert second.issue(again, "client-2", 4.0) == 2
    assert second.counts()["retried"] == 1
    assert second.failed(0, 2, DIED, 5.0, retry=True).dropped


@pytest.mark.parametrize("code", ["blocks_overlap", "blocks_leave_gaps"])
def test_a_fault_of_the_decomposition_is_not_tried_again(ledger, code):
    """It would be the same in each attempt."""
    record = ledger.records[0]
    ledger.issue(record, "client-0", 1.0)
    outcome = ledger.finalized(record.simulation, record.attempt, STEPS, 0, 7.0, (code, "u"))
    assert outcome.dropped
    assert record.status == FAILED
    assert str(record.failure).startswith("field 'u': the blocks of the client's ranks")
    assert ledger.finalized(0, record.attempt, STEPS, 0, 7.0, (code, "u")) is None


def test_a_million_simulations_are_kept_in_columns():
    """A checkpoint copies only what may change, and only simulations that are not over are objects."""
    count = 3000
    ledger = Ledger(count, STEPS, retries=0)
    for number in range(count):
        record = ledger.add((float(number), 2.0), "prior", 0, -1.5)
        ledger.issue(record, "client-0", 1.0 + number)
        if number % 100:
            ledger.finalized(number, 0, STEPS, STEPS, 2.0 + number)
        else:
            ledger.failed(number, 0, DIED, 2.0 + number, retry=True)
    assert not ledger.records.live
    state = ledger.state()["records"]
    assert np.shares_memory(state["drawn"], ledger.state()["records"]["drawn"])
    copied = sum(state[key].nbytes for key in ("drawn", "progress"))
    assert copied <= count * row_bytes(2)
    assert list(state["failures"]) == list(range(0, count, 100))
    assert ledger.records[100].failure == DIED
    assert ledger.records[-1].parameters == (count - 1.0, 2.0)
    assert [r.simulation for r in ledger.records[5:8]] == [5, 6, 7]


def test_a_later_study_of_more_simulations_continues_from_the_same_records():
    first = Ledger(1, STEPS, retries=0)
    first.issue(first.add((1.0,), "prior", 0, None), "client-0", 1.0)
    first.finalized(0, 0, STEPS, STEPS, 2.0)
    second = Ledger(3, STEPS, retries=0)
    second.restore(first.state())
    second.issue(second.add((2.0,), "breed", 1, -0.5), "client-0", 3.0)
    assert [r.method for r in second.records] == ["prior", "breed"]
    assert second.counts()["waiting"] == 1 and second.unfinished == 2


def test_the_last_failure_is_named_if_nothing_was_completed():
    ledger = Ledger(2, STEPS, retries=0)
    for number in range(2):
        ledger.issue(ledger.add((1.0,), "prior", 0, None), "client-0", 1.0)
        ledger.failed(number, 0, DIED, 5.0 - number, retry=True)
    assert ledger.failure() == f"all 2 simulations failed; the last one, simulation 0: {DIED}"

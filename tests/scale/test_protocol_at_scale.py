"""The protocol with many clients in virtual time; `python -m tests.scale` runs it with thousands."""

import itertools

import pytest

from melissa_gen.server.coordination.ledger import FINISHED
from tests.scale.__main__ import measured, rows_of, study_of
from tests.scale.virtual_run import VirtualRun

CLIENTS, PROCESSES, RANKS = 48, 6, 4
MESSAGE_SECONDS = 50e-6


def fixed_cost():
    """A CPU clock by which each message takes the same time, whatever machine runs the test."""
    return map(MESSAGE_SECONDS.__mul__, itertools.count()).__next__


def run_of(deaths, clients=CLIENTS, processes=PROCESSES):
    run = VirtualRun(study_of(clients, processes, RANKS, steps=8), 2.0, RANKS, fixed_cost())
    run.run(deaths, limit=1000.0)
    return run


@pytest.fixture(scope="module")
def struck():
    """A study in which a quarter of the clients has died at once."""
    return run_of(deaths=0.25)


def test_a_quarter_of_the_clients_dies_at_once_and_nothing_is_lost(struck):
    assert struck.control.failure == ""
    assert struck.control.ledger.counts()["completed"] == struck.study.simulation.count
    assert struck.control.ledger.counts()["retried"] == CLIENTS / 4
    assert {record.status for record in struck.control.ledger.records} == {FINISHED}
    counters = [rank.assembler.counters for rank in struck.ranks.values()]
    assert all(one.produced == one.received + one.lost for one in counters)
    steps = struck.study.simulation.time_steps
    kept = sum(one.received - one.duplicate for one in counters)
    assert kept == struck.study.simulation.count * steps


def test_the_lost_clients_are_replaced_as_fast_as_jobs_start(struck):
    poll, slowest_start = struck.study.launcher.poll, 8.0
    assert 0 < struck.noticed - struck.died <= poll + 0.1
    assert struck.recovered - struck.died <= poll + slowest_start + 0.1


def test_messages_per_sample_do_not_grow_with_the_number_of_clients():
    few, many = (measured(run_of(0.0, clients))["messages per sample"] for clients in (16, 64))
    assert many <= 1.02 * few


def test_samples_under_way_take_less_than_the_slots_that_are_promised(struck):
    for rank in struck.ranks.values():
        assert 0 < rank.most_slots <= CLIENTS * struck.study.flow.steps


def test_the_table_has_the_published_design_beside_ours(struck):
    rows = {name: values for name, *values in rows_of(struck)}
    ours, training, n_by_m = rows["messages per sample"]
    assert training == 1.0 < n_by_m < ours

"""Seconds that processes have counted become shares of the time since the last status."""

import math

import pytest

from melissa_gen.protocol import wire
from melissa_gen.server.coordination.time_shares import TimeShares
from melissa_gen.server.stopwatch import INGEST_PARTS


def report(rank, size=0, **seconds):
    every = dict.fromkeys((*INGEST_PARTS, "drawing"), 0.0) | seconds
    return {"rank": rank, "ingest": every, "counters": {"bytes": size}}


def beat(job, *spent, credit=0.0, parameters=0.0):
    return wire.Alive(job, wire.SOLVING, 0, 0, credit, parameters, spent)


def test_the_busiest_rank_is_named():
    shares = TimeShares()
    assert shares.ingest([report(0), report(1), None]) == {}
    idle = report(0, waiting=9.0, copying=1.0)
    busy = report(1, 8_000_000, waiting=1.0, blocked=0.5, copying=2.0, storing=0.5)
    found = shares.ingest([idle, busy, None])
    assert found["rank"] == 1 and found["megabytes_per_second"] == pytest.approx(2.0)
    assert (found["waiting"], found["copying"]) == pytest.approx((0.25, 0.5))
    assert sum(found[part] for part in (*INGEST_PARTS, "drawing")) == pytest.approx(1.0)
    # A status later, only what is new counts.
    later = report(1, 8_000_000, waiting=2.0, blocked=0.5, copying=2.0, storing=0.5)
    assert shares.ingest([None, later])["waiting"] == 1.0


def test_selecting_batches_takes_place_while_the_ingest_thread_waits():
    shares = TimeShares()
    shares.ingest([report(0)])
    found = shares.ingest([report(0, waiting=1.0, blocked=2.0, copying=1.0, drawing=1.4)])
    assert (found["waiting"], found["blocked"]) == pytest.approx((0.0, 0.4))
    assert sum(found[part] for part in (*INGEST_PARTS, "drawing")) == pytest.approx(1.0)


def test_selecting_batches_beside_a_busy_ingest_thread_makes_no_more_than_all_of_the_time():
    shares = TimeShares()
    shares.ingest([report(0)])
    found = shares.ingest([report(0, waiting=0.5, copying=1.5, drawing=1.0)])
    assert (found["waiting"], found["copying"], found["drawing"]) == (0.0, 0.75, 0.25)


def test_reports_that_say_nothing_are_unknown():
    shares = TimeShares()
    for _ in range(2):
        assert shares.ingest([{"rank": 0, "counters": {"bytes": 1}}]) == {}
        assert shares.ingest([{"rank": 0, "ingest": {"waiting": 1.0}, "counters": {}}]) == {}


def test_the_shares_of_clients_are_means_over_those_that_say_them():
    shares = TimeShares()
    first = [beat("a", 1.0, 0.5, 0.25, 0.25), beat("b", 1.0, 1.0, 0.0, 0.0), beat("old")]
    assert shares.clients(first) == {}
    later = [
        beat("a", 3.0, 1.5, 0.5, 0.5, credit=0.5),
        beat("b", 2.0, 2.0, 0.0, 0.0),
        beat("old", credit=1.0),
    ]
    found = shares.clients(later)
    assert found == pytest.approx(
        {
            **{"solving": 0.75, "copying": 0.0625, "sending": 0.0625},
            **{"waiting_for_credit": 0.125, "waiting_for_parameters": 0.0},
        }
    )
    assert sum(found.values()) == pytest.approx(1.0)
    assert shares.clients(later) == found, "no new heartbeat"
    assert shares.clients([beat("old")]) == {}


def test_the_clients_of_recorded_data_read_it():
    for between, solves in (("reading", {"reading": 0.5}), (None, {})):
        shares = TimeShares(between)
        for beats in (1.0, 3.0):
            found = shares.clients([beat("a", beats, 0.5 * beats, 0.0, 0.0)])
        waits = dict.fromkeys(("waiting_for_credit", "waiting_for_parameters"), 0.0)
        assert found == solves | waits | {"copying": 0.0, "sending": 0.0}


@pytest.mark.parametrize("spent", [(1.0,), (math.nan,) * 4, (2.0, math.inf, 0.0, 0.0)])
def test_clients_that_say_nonsense_are_unknown(spent):
    shares = TimeShares()
    for _ in range(2):
        assert shares.clients([beat("a", *spent)]) == {}


def test_a_client_that_says_too_much_has_at_most_all_of_its_time():
    shares = TimeShares()
    shares.clients([beat("a", 1.0, 0.0, 9.0, 0.0)])
    found = shares.clients([beat("a", 2.0, 500.0, 0.0, 0.0)])
    assert found["solving"] == 1.0 and found["copying"] == 0.0

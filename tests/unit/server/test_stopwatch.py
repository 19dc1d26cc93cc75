"""The time of the trainer is split into kinds of work without a gap."""

import time

from melissa_gen.server.stopwatch import PARTS, Stopwatch


def test_parts_add_up_to_the_time_that_passed():
    watch = Stopwatch()
    began = time.monotonic()
    watch.start()
    after_start = time.monotonic()
    for part in PARTS * 3:
        watch.lap(part)
    last = time.monotonic()
    assert after_start - began >= 0
    assert 0 < sum(watch.seconds.values()) <= last - began


def test_each_thread_has_parts_of_its_own():
    watch = Stopwatch(("reading", "writing"))
    watch.restore({"writing": 2.0, "waiting": 1.0})
    watch.lap("reading")
    assert watch.seconds.keys() == {"reading", "writing"} and watch.seconds["writing"] == 2.0


def test_a_restored_watch_continues():
    watch = Stopwatch()
    watch.restore({"waiting": 3.0, "unknown": 7.0})
    assert watch.seconds["waiting"] == 3.0
    assert set(watch.seconds) == set(PARTS)

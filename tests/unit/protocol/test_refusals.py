"""Refused messages without end give a bounded number of sentences, and each of them is counted."""

from hypothesis import given
from hypothesis import strategies as st

from melissa_gen.protocol.failures import Failure
from melissa_gen.protocol.refusals import MOST_KINDS, Refusals


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_reasons_that_differ_in_numbers_are_one_kind():
    refusals = Refusals()
    for size in range(50_000):
        refusals.add("control", f"a message of {size} bytes is shorter than the header's 48")
    (only,) = refusals.take()
    assert (only.source, only.count) == ("control", 50_000)
    assert only.reason == "a message of 0 bytes is shorter than the header's 48"
    assert refusals.take() == []


def test_a_kind_is_reported_at_once_and_then_at_intervals():
    clock = Clock()
    refusals = Refusals(60.0, clock)
    reported = []
    for second in range(121):
        clock.now = float(second)
        refusals.add("data", "junk")
        reported += [(second, refusal.count) for refusal in refusals.take()]
    assert reported == [(0, 1), (60, 60), (120, 60)]
    refusals.add("data", "junk")
    assert [refusal.count for refusal in refusals.take(last=True)] == [1]


def test_the_code_of_a_failure_is_kept():
    refusals = Refusals()
    failure = Failure.of("wrong_ranks", job="client-1", ranks=1, processes=2)
    refusals.add("control", str(failure), failure=failure)
    assert refusals.take()[0].failure == failure


@given(
    st.lists(
        st.tuples(st.sampled_from(["control", "heartbeat"]), st.text(max_size=500)), max_size=200
    )
)
def test_kinds_are_limited_and_the_counts_add_up(messages):
    refusals = Refusals()
    for source, reason in messages:
        refusals.add(source, reason)
    taken = refusals.take()
    assert sum(refusal.count for refusal in taken) == len(messages)
    assert len(taken) <= 2 * (MOST_KINDS + 1)
    assert all(len(refusal.reason) <= 400 for refusal in taken)

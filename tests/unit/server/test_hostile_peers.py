"""Peers that know the token of the run and send anything: refused with a sentence, and no thread ends."""

import contextlib
import json

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from melissa_gen.errors import ProtocolError
from melissa_gen.launcher.jobs.server_link import event_of
from melissa_gen.protocol import json_messages, wire
from melissa_gen.protocol.json_link import JsonLink
from melissa_gen.server.coordination.control_messages import Report, read_control_message
from melissa_gen.server.coordination.status import StatusBoard
from tests.unit.protocol.conftest import LAYOUTS, MESSAGES, messages_of
from tests.unit.server.ingest_rank import Rank
from tests.unit.server.test_control_thread import Server

COUNTERS = dict.fromkeys(("produced", "received", "lost", "duplicate", "rejected", "bytes"), 1)
RESERVOIR = dict.fromkeys(
    ("stored", "trained", "capacity", "watermark", "seen", "unseen", "samples_drawn"), 1
)
REPORT = {
    "rank": 0,
    "last": False,
    "counters": COUNTERS,
    "reservoir": RESERVOIR | {"withdrawn": {"stopped": 1}},
    "pending": 0,
    "training": {"batches": 1, "waiting_seconds": 0.5},
    "activity": "waiting",
    "turns": 3,
    "finalized": [[0, 0, 4, 4], [1, 0, 4, 4, []], [1, 0, 4, 4, ["blocks_overlap", "u"]]],
    "refused": [["data of rank 0", "junk", 3]],
    "first_pass": [[0, 0.5, 0.1]],
    "saved": [1, True, ""],
    "warnings": ["slow"],
}
GOOD = {
    "ping": {"sent": 3},
    "rank_hello": {"rank": 0},
    "rank_report": REPORT,
    "launcher_hello": {},
    "job_ended": {"job": "client-0", "exit_code": 1, "simulation": 0},
    "alive": {"queued": 1, "starting": 2},
}
ENDING = {"leave": {"reason": "time"}, "stop": {"reason": "enough"}}
NUMBERS = st.one_of(st.integers(), st.integers(-(10**400), 10**400), st.floats())
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=8,
)
SHORT = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    # A thread that has ended once makes every smaller example fail.
    phases=[Phase.explicit, Phase.generate],
)


@contextlib.contextmanager
def opened(peer):
    try:
        yield peer
    finally:
        peer.socket.close(linger=0)


def damage(data, value):
    """Replaces one value somewhere inside, or removes it."""
    if isinstance(value, dict) and value and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(sorted(value)))
        if data.draw(st.integers(0, 3)) == 0:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: damage(data, value[key])}
    if isinstance(value, list) and value and data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(value) - 1))
        return [*value[:place], damage(data, value[place]), *value[place + 1 :]]
    return data.draw(JSON)


def damaged(data, kinds):
    """A message of a known kind with one damage, or one of an unknown kind."""
    kind = data.draw(st.sampled_from(sorted(kinds)))
    body = damage(data, kinds[kind])
    body = body if isinstance(body, dict) else {"anything": body}
    return {**body, "type": data.draw(st.sampled_from([kind, kind, kind, "other"]))}


@pytest.mark.parametrize("kind", GOOD | ENDING)
def test_good_messages_are_read(kind):
    read_control_message({"type": kind, **(GOOD | ENDING)[kind]}, 1)


@pytest.mark.parametrize("name", ["batches", "samples_drawn", "waiting_seconds"])
def test_a_total_of_the_training_must_be_a_number(name):
    report = {"type": "rank_report", **(GOOD | ENDING)["rank_report"], "training": {name: None}}
    with pytest.raises(ProtocolError, match=f"'{name}' must be a number"):
        read_control_message(report, 1)


@settings(max_examples=300)
@given(data=st.data())
def test_a_message_is_read_or_refused_and_what_is_read_can_be_shown(data):
    message = damaged(data, GOOD | ENDING)
    try:
        read = read_control_message(message, 1)
    except ProtocolError as error:
        assert "a control message" in str(error)
        return
    if isinstance(read, Report):
        board = StatusBoard(1)
        board.report(read.model_dump(exclude_none=True))
        assert json.dumps(board.status({}, {}, []))
        board.saved()
        board.withdrawn()


@SHORT
@given(data=st.data())
def test_the_launcher_reads_a_message_or_says_that_it_is_incomplete(data):
    kinds = {
        "want": {"ended": 1, "clients": 2, "simulations": [[0, 1]]},
        "kill": {"job": "a", "reason": "b"},
        "connected": {"job": "a"},
        "finished": {"status": "finished", "reason": ""},
    }
    try:
        event_of(damaged(data, kinds))
    except ProtocolError as error:
        assert "the server sent an incomplete" in str(error)


@pytest.fixture
def server(bound, peer):
    made = Server(bound, peer)
    yield made
    made.finish()


@SHORT
@given(data=st.data())
def test_no_message_of_a_peer_ends_the_control_thread(server, data):
    with opened(server.make("control")) as peer:
        send_anything(peer, data)
        wait_until_all_is_read(peer)
    assert server.control.failure is None
    assert server.control.running


def wait_until_all_is_read(peer):
    """Returns at the answer to a ping; passes over the binary refusals before it.

    Like each peer, it asks again after a second: answers to a peer that has read nothing for long are dropped.
    """
    for _ in range(30):
        peer.send_json("ping", sent=0)
        while peer.socket.poll(1000):
            frames = peer.socket.recv_multipart()
            if len(frames) > 2 and b'"pong"' in frames[2]:
                return
    raise AssertionError("no answer")


def send_anything(peer, data):
    """Sends messages to the control socket, most of them malformed."""
    for _ in range(10):
        if data.draw(st.booleans()):
            message = damaged(data, GOOD)
            if message.get("last") is True:
                # A last report ends the run, as it should.
                continue
            peer.send_json(message.pop("type"), **message)
        elif data.draw(st.booleans()):
            peer.send(data.draw(MESSAGES), *data.draw(st.lists(st.binary(max_size=9), max_size=2)))
        else:
            asked = data.draw(st.sampled_from([wire.Hello, wire.Next, wire.Failed, wire.Ping]))
            peer.send(data.draw(messages_of(asked)))


def test_a_stolen_contact_file_suffices_to_stop_a_run(server):
    """As the page on security says: the file is the key."""
    server.make("control").send_json("stop", reason="stolen")
    assert server.rank.receive_json("stop")["reason"] == "stolen"


def test_refusals_without_end_are_few_events(server):
    peer = server.make("control")
    for size in range(5000):
        peer.send_json("job_ended", job="x" * (size % 7), exit_code="none")
        peer.socket.send(bytes(size % 97))
    for number in range(200):
        peer.send_json(f"kind {'x' * number}")
    wait_until_all_is_read(peer)
    assert 2 <= len(server.named("refused")) <= 17
    server.finish()
    assert len(server.named("refused")) <= 34
    assert sum(event["count"] for event in server.named("refused")) == 10_200


@SHORT
@given(data=st.data())
def test_no_message_of_a_peer_ends_the_ingest_thread(hostile_rank, data):
    rank, make = hostile_rank
    kinds = st.sampled_from([wire.Part, wire.Finalize, wire.Share, wire.Ping])
    with opened(make("data")) as peer:
        for _ in range(10):
            message = data.draw(kinds.flatmap(messages_of))
            payload = data.draw(st.lists(st.binary(max_size=100), max_size=3))
            peer.send(message, *payload, rank=data.draw(LAYOUTS["u32"]))
        peer.send(wire.Ping(1))
        while not isinstance(peer.receive(*wire.MESSAGES), wire.Pong):
            pass
    assert rank.state.error is None
    assert rank.ingest.running


@pytest.fixture
def hostile_rank(context, bound, peer):
    rank = Rank(context, bound)
    yield rank, peer
    rank.end()


@SHORT
@given(data=st.data())
def test_no_message_ends_the_link_of_a_rank_or_launcher(data):
    class Socket:
        def __init__(self, frames):
            self.frames = frames

        def poll(self, milliseconds):
            return len(self.frames)

        def recv_multipart(self):
            return self.frames.pop()

        def send_multipart(self, frames, flags):
            pass

    class Contact:
        token = bytes(16)

    message = damaged(
        data, {"pong": {"sent": 1, "received": 0, "number": 0}, "want": {"number": 1}}
    )
    frames = json_messages.pack(Contact.token, message)
    if data.draw(st.booleans()):
        frames[data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=20))
    for read in JsonLink(Socket([frames]), Contact).receive():
        assert isinstance(read["type"], str)

import json
import math

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from melissa_gen.errors import ProtocolError
from melissa_gen.protocol import json_messages
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.json_link import JsonLink

TOKEN = bytes(range(16))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(body=st.dictionaries(st.text(), JSON, max_size=5), kind=st.text())
def test_messages_read_back(body, kind):
    message = body | {"type": kind}
    assert json_messages.unpack(TOKEN, json_messages.pack(TOKEN, message)) == message


@given(frames=st.lists(st.binary(max_size=40), max_size=5))
def test_arbitrary_frames(frames):
    with pytest.raises(ProtocolError):
        json_messages.unpack(TOKEN, frames)


@given(raw=st.binary(max_size=80))
def test_arbitrary_body(raw):
    with pytest.raises(ProtocolError, match="a control message"):
        json_messages.unpack(TOKEN, [json_messages.MARK, TOKEN, raw])


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"[" * 100_000, "not JSON"),
        (b'{"a":' * 100_000, "not JSON"),
        (b'{"type": "\xff"}', "not JSON"),
        (b"9" * 10_000, "not JSON"),
        (b"", "not JSON"),
        (b"[]", "without a type"),
        (b'"type"', "without a type"),
        (b"{}", "without a type"),
        (b'{"type": 3}', "without a type"),
    ],
)
def test_invalid_messages_are_refused(raw, reason):
    with pytest.raises(ProtocolError, match=reason):
        json_messages.unpack(TOKEN, [json_messages.MARK, TOKEN, raw])


def test_a_diverged_loss_passes():
    message = json_messages.unpack(
        TOKEN, json_messages.pack(TOKEN, {"type": "r", "loss": math.nan})
    )
    assert math.isnan(message["loss"])


def test_frames_and_token_are_named():
    good = json_messages.pack(TOKEN, {"type": "stop"})
    for wrong in ([], good[:2], [*good, b""], [b"K", *good[1:]]):
        with pytest.raises(ProtocolError, match="not of three frames"):
            json_messages.unpack(TOKEN, wrong)
    for token in (b"", bytes(16), TOKEN + b"\0"):
        with pytest.raises(ProtocolError, match="another run's token"):
            json_messages.unpack(TOKEN, [good[0], token, good[2]])
    assert json.loads(good[2]) == {"type": "stop"}


def test_a_link_whose_messages_nobody_reads_says_so():
    contact = Contact.new(0, "node17", ipc=False, encrypt_data=False)
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        link = JsonLink(socket, contact)
        for number in range(240):
            assert not link.congested, number
            link.send({"type": "rank_report"})
        assert link.congested

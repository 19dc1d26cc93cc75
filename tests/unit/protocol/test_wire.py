import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from melissa_gen.errors import ProtocolError
from melissa_gen.protocol import wire

VECTORS = json.loads(Path(__file__).with_name("vectors.json").read_text())
KINDS = wire.MESSAGES
TOKEN = bytes(range(16))
HEADER = 48


def decode_any(data):
    return wire.decode(data, *KINDS)


def encode(message, epoch=1, rank=0):
    return wire.encode(message, epoch, rank, TOKEN)


@settings(max_examples=200)
@given(data=st.data())
def test_every_message_reads_back(messages, data):
    message = data.draw(messages)
    epoch, rank = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.integers(0, 2**32 - 1))
    raw = wire.encode(message, epoch, rank, TOKEN)
    assert decode_any(raw) == message
    assert wire.decode_header(raw) == (message.KIND, epoch, rank, TOKEN, 0, 0)
    for form in (bytearray(raw), memoryview(raw)):
        assert decode_any(form) == message


def test_kinds_are_distinct_and_complete():
    assert sorted(cls.KIND for cls in KINDS) == list(range(1, len(KINDS) + 1))
    assert {vector["message"] for vector in VECTORS["messages"]} == {c.__name__ for c in KINDS}


def tupled(value):
    return tuple(map(tupled, value)) if isinstance(value, list) else value


def built(vector):
    """Returns the message of a test vector, in which blocks and fields are plain lists."""
    cls = getattr(wire, vector["message"])
    values = {name: tupled(value) for name, value in vector["body"].items()}
    if "blocks" in values:
        values["blocks"] = tuple(wire.Block(*block) for block in values["blocks"])
    if "parameters" in values and cls is wire.Welcome:
        values["parameters"] = tuple(wire.StudyParameter(*one) for one in values["parameters"])
    if "fields" in values:
        values["fields"] = tuple(wire.StudyField(*field) for field in values["fields"])
    if "inputs" in values:
        values["inputs"] = tuple(wire.StudyField(*field) for field in values["inputs"])
    if "block" in values:
        values |= {"block": wire.Block(*values["block"]), "values": bytes.fromhex(values["values"])}
    return cls(**values)


@pytest.mark.parametrize("vector", VECTORS["messages"], ids=lambda v: v["name"])
def test_bytes_are_those_that_other_languages_are_tested_with(vector):
    message, raw = built(vector), bytes.fromhex(vector["hex"])
    token = bytes.fromhex(vector["token"])
    header = (vector["epoch"], vector["rank"], token, vector["number"], vector["received"])
    assert wire.encode(message, *header).hex() == vector["hex"]
    assert decode_any(raw) == message


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda v: v["name"])
def test_bytes_that_every_decoder_refuses(vector):
    with pytest.raises(ProtocolError) as caught:
        decode_any(bytes.fromhex(vector["hex"]))
    assert vector["reason"] in str(caught.value)


@pytest.mark.parametrize("vector", VECTORS["owners"], ids=str)
def test_owners_are_those_that_other_languages_are_tested_with(vector):
    simulation, ranks, expected = vector
    assert wire.owner(simulation, ranks) == expected


def only_protocol_errors(data):
    """Decodes; returns the peak of allocated bytes."""
    tracemalloc.start()
    try:
        decode_any(data)
    except ProtocolError as error:
        assert str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def bound(data):
    """Returns the memory limit: about two Python objects for every few received bytes."""
    return 20_000 + 80 * len(data)


@settings(max_examples=300)
@given(data=st.binary(max_size=200))
def test_arbitrary_bytes(data):
    assert only_protocol_errors(data) < bound(data)


@settings(max_examples=300)
@given(kind=st.integers(0, 2**16 - 1) | st.integers(1, 12), body=st.binary(max_size=300))
def test_arbitrary_body_behind_a_good_header(kind, body):
    header = bytearray(encode(wire.Done()))
    header[6:8] = kind.to_bytes(2, "little")
    assert only_protocol_errors(bytes(header) + body) < bound(body)


@settings(max_examples=300)
@given(data=st.data())
def test_mutated_messages(messages, data):
    raw = bytearray(encode(data.draw(messages)))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place] = data.draw(st.integers(0, 255))
    assert only_protocol_errors(bytes(raw)) < bound(raw)


@settings(max_examples=100)
@given(data=st.data())
def test_truncated_and_trailing(messages, data):
    message = data.draw(messages)
    raw = encode(message)
    cut = data.draw(st.integers(0, len(raw) - 1))
    if isinstance(message, wire.Alive):
        # Its list at the end is optional: what is before it is a whole message.
        assume(message.spent and cut != len(encode(replace(message, spent=()))))
    with pytest.raises(ProtocolError):
        decode_any(raw[:cut])
    with pytest.raises(ProtocolError, match=r"with \d bytes too many"):
        decode_any(raw + data.draw(st.binary(min_size=1, max_size=8)))


@pytest.mark.parametrize("cls", [c for c in KINDS if any(k[0] in "[s" for k in c.LAYOUT)])
def test_huge_counts_allocate_nothing(cls):
    for fill in (b"\xff", b"\x00", b"\xff\xff\x00\x00"):
        raw = encode(wire.Done())[:6] + cls.KIND.to_bytes(2, "little") + encode(wire.Done())[8:]
        raw += fill * (400 // len(fill))
        assert only_protocol_errors(raw) < bound(raw)


def test_version_is_named():
    raw = bytearray(encode(wire.Next(-1)))
    raw[4:6] = (7).to_bytes(2, "little")
    with pytest.raises(ProtocolError, match="protocol version 7; version 6 is spoken here"):
        decode_any(bytes(raw))


def test_stranger_is_named():
    with pytest.raises(ProtocolError, match="does not start with MGEN: not a melissa_gen peer"):
        decode_any(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
    with pytest.raises(ProtocolError, match="of 3 bytes is shorter than the header's 48"):
        decode_any(b"abc")


def test_kind_is_named():
    with pytest.raises(ProtocolError, match="a message of kind 6, where Part, Finalize is legal"):
        wire.decode(encode(wire.Done()), wire.Part, wire.Finalize)


def test_epoch_and_token_are_named():
    header = wire.decode_header(encode(wire.Done(), epoch=3))
    wire.check_peer(header, 3, TOKEN)
    with pytest.raises(ProtocolError, match="a stale peer of epoch 3; this is epoch 4"):
        wire.check_peer(header, 4, TOKEN)
    with pytest.raises(ProtocolError, match="a newer peer of epoch 3; this is epoch 2"):
        wire.check_peer(header, 2, TOKEN)
    with pytest.raises(ProtocolError, match="another run's token") as caught:
        wire.check_peer(header, 3, bytes(16))
    assert TOKEN.hex() not in str(caught.value)


@pytest.mark.parametrize(
    "message",
    [
        wire.Next(2**63),
        wire.Hello("j", "h", -1, 1),
        wire.Credit((70_000,)),
        wire.Credit((1,) * 70_000),
        wire.Part(0, 0, 0, 1, 1, 0, 0, (wire.Block(0, (), ()),)),
        wire.Part(0, 0, 0, 1, 1, 0, 0, (wire.Block(0, (1, 2), (1,)),)),
        wire.Part(0, 0, 0, 1, 1, 0, 0, (wire.Block(0, (-1,), (1,)),)),
        wire.Part(0, 0, 0, 1, 1, 0, 0, (wire.Block(0, (0,), (1,)),) * 17),
        wire.Welcome(1, 1, 1, 1, 0.05, 1.0, 1.0, (), (wire.StudyField("u", "float32", (1,) * 5),)),
    ],
    ids=lambda m: type(m).__name__,
)
def test_the_encoder_refuses_what_the_decoder_would_refuse(message):
    with pytest.raises(ProtocolError, match="does not fit its place in a message"):
        encode(message)


def test_long_texts_are_truncated():
    for text in ("x" * 70_000, "é" * 40_000, "🔥" * 20_000):
        reason = decode_any(encode(wire.Refused(text))).reason
        assert text.startswith(reason)
        assert 65_530 < len(reason.encode()) <= 65_535
    assert decode_any(encode(wire.Refused("file \udcff.h5"))).reason == "file ?.h5"


def test_neighbouring_simulations_go_to_different_ranks():
    for ranks in (2, 3, 5):
        owners = [wire.owner(3 + n, ranks) for n in range(ranks)]
        assert sorted(owners) == list(range(ranks))
    assert wire.owner(np.array([0, 4, 7]), 3).tolist() == [0, 1, 1]


def test_the_blocks_of_thousands_of_ranks_are_read_once():
    parts = [wire.Part(0, 0, 0, 1, 3000, 0, 0, (wire.Block(0, (n,), (1,)),)) for n in range(3000)]
    frames = [wire.encode(part, 0, 0, TOKEN) for part in parts]
    first, second = ([wire.decode(frame, wire.Part).blocks for frame in frames] for _ in range(2))
    assert first == [part.blocks for part in parts]
    assert all(once is again for once, again in zip(first, second, strict=True))

"""Failures: sentences from codes and values, also those that another language or a broken client sends."""

import json
import string
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from melissa_gen.errors import ClientError
from melissa_gen.exit_status import signal_with_cause
from melissa_gen.protocol import wire
from melissa_gen.protocol.failures import SENTENCES, Failure, failure_in

VECTORS = json.loads(Path(__file__).with_name("vectors.json").read_text())


@pytest.mark.parametrize("vector", VECTORS["failures"], ids=lambda v: v["code"])
def test_sentences_are_those_that_other_languages_are_tested_with(vector):
    found = Failure.received(vector["code"], json.dumps(vector["values"]))
    assert (found.code, found.values) == (vector["code"], vector["values"])
    assert str(found) == vector["sentence"]


def test_a_misspelled_name_gets_a_hint():
    failure = Failure.of("unknown_field", field="temprature", legal=["temperature", "p"])
    assert "field 'temprature' (did you mean 'temperature'?) is not in the study" in str(failure)


@pytest.mark.parametrize("code", SENTENCES)
def test_every_code_is_received_as_it_is_sent(code):
    names = {name for _, name, _, _ in string.Formatter().parse(SENTENCES[code]) if name}
    values = dict.fromkeys(names - {"where", "hint"}, 3)
    sent = Failure.of(code, **values)
    assert Failure.received(sent.code, sent.values_json) == sent
    assert Failure.recorded(json.loads(json.dumps(sent.record()))) == sent


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(code=st.sampled_from(sorted(SENTENCES)) | st.text(), values=JSON.map(json.dumps) | st.text())
@example(code="given_up", values='{"text": "\\udcff"}')
@example(code="given_up", values='{"text": {"a": 1}}')
@example(code="given_up", values="[" * 100_000)
@example(code="given_up", values='{"text": ' + "9" * 10_000 + "}")
def test_any_received_failure_becomes_a_sentence(code, values):
    found = Failure.received(code, values)
    assert found.code in SENTENCES
    str(found).encode()
    json.loads(json.dumps(found.record(), allow_nan=False))


def test_an_unknown_failure_is_quoted():
    assert str(Failure.received("melted", '{"by": "heat"}')) == 'melted: {"by": "heat"}'
    assert str(Failure.received("given_up", "{}")) == "given_up: {}"


def test_a_long_text_fits_into_a_message():
    failure = Failure.of("exception", type="ValueError", text="é" * 100_000)
    message = wire.Failed("job", 0, 0, 0, failure.code, failure.values_json)
    received = wire.decode(wire.encode(message, 1, 0, bytes(16)), wire.Failed)
    assert Failure.received(received.code, received.values) == failure


def test_an_error_carries_its_failure():
    failure = Failure.of("too_few_steps", simulation=0, steps=1, time_steps=2)
    assert failure_in(ClientError(failure)) is failure
    assert str(ClientError(failure)) == "simulation 0 ended after 1 of 2 time steps"
    assert str(failure_in(ValueError("no"))) == "ValueError: no"


def test_details_follow_the_sentence():
    failure = Failure.of("silent", seconds=3)
    assert str(failure.with_details("its log is empty")) == (
        "it has been silent for 3 s; its log is empty"
    )
    assert failure.with_details("") == failure


@pytest.mark.parametrize("status", [137, -9])
def test_a_process_that_is_killed_may_have_lacked_memory(status):
    reason = str(Failure.of("process_ended", exit_status=status))
    assert reason.startswith(
        f"its process ended with exit status {status} (killed, often for lack of memory"
    )
    for other in (1, 9, 143):
        assert "memory" not in str(Failure.of("process_ended", exit_status=other))


def test_the_command_of_a_bridge_that_is_killed_may_have_lacked_memory():
    assert str(Failure.of("command_killed", signal=9)) == (
        f"the command was ended by signal {signal_with_cause(9)}"
    )
    assert str(Failure.of("command_killed", signal=15)) == "the command was ended by signal 15"

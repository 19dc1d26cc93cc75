import time

import pytest

from melissa_gen.protocol import wire
from melissa_gen.server.coordination.heartbeat_thread import HeartbeatThread


@pytest.fixture
def beats(bound):
    beats = HeartbeatThread(bound[0], bound[1]["heartbeat"])
    yield beats
    beats.close()
    assert not beats.running


@pytest.fixture
def client(peer, beats):
    return peer("heartbeat")


def alive(state=wire.SOLVING, simulation=3, step=7, job="client-0"):
    return wire.Alive(job, state, simulation, step, 0.0, 0.0)


def beat(client, *args, **values):
    """Sends a heartbeat and waits until it was heard."""
    message = alive(*args, **values)
    client.send(message)
    assert client.receive(wire.Alive) == message


def test_a_beat_is_answered_and_noted(beats, client):
    before = time.monotonic()
    beat(client)
    pulse = beats.pulses["client-0"]
    assert pulse.beat == alive()
    assert before <= pulse.heard <= time.monotonic()
    assert pulse.progressed == pulse.heard


def test_the_same_time_step_is_no_progress(beats, client):
    beat(client, step=7)
    first = beats.pulses["client-0"].progressed
    beat(client, step=7)
    pulse = beats.pulses["client-0"]
    assert pulse.progressed == first < pulse.heard
    beat(client, step=8)
    assert beats.pulses["client-0"].progressed > first


@pytest.mark.parametrize(
    ("state", "withholding", "progress"),
    [
        (wire.SOLVING, False, False),
        (wire.SOLVING, True, False),
        (wire.WAITING_FOR_CREDIT, True, True),
        (wire.WAITING_FOR_CREDIT, False, False),  # it waits for its own other ranks
        (wire.WAITING_FOR_PARAMETERS, False, True),
    ],
)
def test_waiting_for_the_server_is_not_being_stuck(beats, client, state, withholding, progress):
    beats.withholding = withholding
    beat(client, state)
    first = beats.pulses["client-0"].progressed
    beat(client, state)
    assert (beats.pulses["client-0"].progressed > first) == progress


def test_a_stop_is_sent_to_clients(beats, client):
    beat(client)
    beats.stop_reason = "enough"
    client.send(alive())
    assert client.receive(wire.Stop).reason == "enough"


def test_a_job_that_ended_is_forgotten_even_if_a_beat_of_it_is_late(beats, client):
    beat(client)
    beats.forget("client-0")
    beat(client)
    beat(client, job="client-1")
    assert list(beats.pulses) == ["client-1"]


def test_unknown_peers_are_refused_by_name(beats, client, peer):
    stranger = peer("heartbeat")
    stranger.socket.send(b"junk")
    stranger.socket.send_multipart([b"a", b"b"])
    stranger.send(alive(), epoch=4)
    stranger.send(alive(), token=bytes(16))
    stranger.send(wire.Done())
    stranger.send(alive(job="client-1"))
    assert stranger.receive(wire.Alive).job == "client-1"  # all before it was read
    refused = beats.take_refused()
    assert sum(refusal.count for refusal in refused) == 5
    assert "a stale peer of epoch 4; this is epoch 5" in {refusal.reason for refusal in refused}
    beat(client)
    assert set(beats.pulses) == {"client-0", "client-1"}

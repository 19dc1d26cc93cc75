import pytest
import zmq

from melissa_gen.errors import ProtocolError
from melissa_gen.launcher.jobs import machine as jobs
from melissa_gen.launcher.jobs.server_link import ServerLink, event_of
from melissa_gen.protocol import json_messages
from melissa_gen.protocol.authenticator import Authenticator
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.sockets import bind_socket


@pytest.mark.parametrize(
    ("message", "event"),
    [
        ({"type": "want", "clients": 2, "ended": 5}, jobs.WantedJobs(5, clients=2)),
        (
            {"type": "want", "simulations": [[3, 0], [4, 1]], "ended": 0},
            jobs.WantedJobs(0, simulations=((3, 0), (4, 1))),
        ),
        (
            {"type": "kill", "job": "client-1", "reason": "silent"},
            jobs.KillRequested("client-1", "silent"),
        ),
        ({"type": "connected", "job": "client-1"}, jobs.Connected("client-1")),
        ({"type": "stopping", "reason": "full"}, jobs.ServerStopping("full")),
        ({"type": "leaving", "reason": "time"}, jobs.ServerPreempting("time")),
        ({"type": "finished", "status": "finished"}, jobs.ServerFinished("finished")),
        ({"type": "something new"}, None),
    ],
)
def test_messages_become_events(message, event):
    assert event_of(message) == event


@pytest.mark.parametrize(
    "message",
    [
        {"type": "want"},
        {"type": "want", "ended": "many"},
        {"type": "want", "ended": 0, "simulations": [3]},
        {"type": "want", "ended": 0, "simulations": 7},
        {"type": "kill"},
        {"type": "finished"},
    ],
)
def test_a_message_that_lacks_something_is_named(message):
    with pytest.raises(ProtocolError, match=f"'{message['type']}' message"):
        event_of(message)


@pytest.fixture(params=["ipc", "tcp"])
def server(request):
    context = zmq.Context()
    contact = Contact.new(0, "here", ipc=request.param == "ipc", encrypt_data=False)
    if request.param == "tcp":
        Authenticator(context, contact)
    socket, endpoint = bind_socket(context, contact, "control", "127.0.0.1")
    contact = Contact.from_json(
        contact.to_json().replace('"control": ""', f'"control": "{endpoint}"')
    )
    yield socket, contact
    context.destroy(linger=0)


def test_both_directions(server):
    socket, contact = server
    link = ServerLink(contact)
    try:
        assert link.receive() == []
        link.send({"type": "launcher_hello"})
        assert socket.poll(5000)
        identity, *frames = socket.recv_multipart()
        assert json_messages.unpack(contact.token, frames)["type"] == "launcher_hello"
        for number in range(3):
            message = json_messages.pack(contact.token, {"type": "want", "ended": number})
            socket.send_multipart([identity, *message])
        found = []
        while len(found) < 3:
            assert link.socket.poll(5000)
            found += link.receive()
        assert [message["ended"] for message in found] == [0, 1, 2]
    finally:
        link.close()


def test_a_server_that_does_not_read_does_not_block_the_launcher():
    contact = Contact.new(0, "here", ipc=False, encrypt_data=False)
    text = contact.to_json().replace('"control": ""', '"control": "tcp://127.0.0.1:9"')
    link = ServerLink(Contact.from_json(text))
    for _ in range(3000):
        link.send({"type": "alive"})
    link.close()

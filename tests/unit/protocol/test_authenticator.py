"""Who may connect to a server over the network, and what a peer without the keys can do there: nothing."""

from dataclasses import replace

import pytest
import zmq

from melissa_gen.protocol.authenticator import Authenticator
from melissa_gen.protocol.contact import Contact, Curve
from melissa_gen.protocol.handshake import Handshake
from melissa_gen.protocol.sockets import bind_socket, connect_socket
from tests.conftest import wait_for

PATIENCE = 10_000
SILENCE = 300


class Server:
    """A data or control socket on tcp."""

    def __init__(self, *, encrypt_data=False, data=True, authenticated=True):
        self.context = zmq.Context()
        self.contact = Contact.new(0, "here", ipc=False, encrypt_data=encrypt_data)
        if authenticated:
            self.authenticator = Authenticator(self.context, self.contact)
        self.data = data
        self.socket, self.endpoint = bind_socket(
            self.context, self.contact, "data-0", "127.0.0.1", data=data, limit=100_000
        )
        self.peers = zmq.Context()

    def connect(self, contact=None):
        return connect_socket(self.peers, contact or self.contact, self.endpoint, data=self.data)

    def close(self):
        self.peers.destroy(linger=0)
        self.context.destroy(linger=0)


@pytest.fixture
def serve():
    servers = []

    def make(**options):
        servers.append(Server(**options))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


SOCKETS = {
    "data": {},
    "encrypted data": {"encrypt_data": True},
    "control": {"data": False},
}


@pytest.mark.parametrize("kind", SOCKETS)
def test_a_peer_with_the_contact_file_is_accepted(serve, kind):
    server = serve(**SOCKETS[kind])
    peer = server.connect()
    peer.send(b"hello")
    assert server.socket.poll(PATIENCE)
    assert server.socket.recv_multipart()[1] == b"hello"
    assert server.authenticator.take_refused() == []


def stranger(contact, kind):
    """A contact that lacks one secret of the run."""
    if kind == "data":
        return replace(contact, token=bytes(16))
    other = Curve.generate()
    keys = {"client_public": other.client_public, "client_secret": other.client_secret}
    return replace(contact, curve=replace(contact.curve, **keys))


@pytest.mark.parametrize("kind", SOCKETS)
def test_a_peer_without_the_keys_is_refused_and_counted(serve, kind):
    server = serve(**SOCKETS[kind])
    peer = server.connect(stranger(server.contact, kind))
    peer.send(b"hello")
    refused = []
    wait_for(lambda: refused.extend(server.authenticator.take_refused()) or refused, "refusal")
    mechanism = "PLAIN" if kind == "data" else "CURVE"
    assert refused[0].source == "connections to data-0"
    assert refused[0].reason == f"a peer without the keys of this run ({mechanism})"
    assert not server.socket.poll(SILENCE)
    if server.data:
        handshake = Handshake(peer)
        wait_for(lambda: handshake.update() or handshake.refused, "its answer")
        handshake.close()


@pytest.mark.parametrize("kind", SOCKETS)
def test_a_message_that_never_ends_is_not_read_from_a_stranger(serve, kind):
    """ZeroMQ keeps all frames of a message that has not ended, however many."""
    server = serve(**SOCKETS[kind])
    peer = server.peers.socket(zmq.DEALER)
    peer.linger = 0
    peer.sndhwm = 0
    monitor = peer.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
    peer.connect(server.endpoint)
    for _ in range(100):
        peer.send(bytes(1000), zmq.SNDMORE)
    assert monitor.poll(PATIENCE)
    event = int.from_bytes(monitor.recv_multipart()[0][:2], "little")
    assert event == zmq.EVENT_DISCONNECTED
    assert not server.socket.poll(SILENCE)
    peer.disable_monitor()


@pytest.mark.parametrize("kind", SOCKETS)
def test_without_an_authenticator_nobody_is_accepted(serve, kind):
    server = serve(authenticated=False, **SOCKETS[kind])
    peer = server.connect()
    peer.send(b"hello")
    assert not server.socket.poll(SILENCE)


def test_the_contact_file_does_not_suffice_to_be_the_server(serve, tmp_path):
    """A thief of the file can't answer clients in the place of the server: its secret key is not in there."""
    real = serve(data=False)
    real.contact.write(tmp_path / "contact.json")
    stolen = Contact.read(tmp_path / "contact.json")
    assert stolen.curve.server_secret == ""
    thief = serve(data=False)
    client = thief.connect(stolen)
    client.send(b"hello")
    assert not thief.socket.poll(SILENCE)

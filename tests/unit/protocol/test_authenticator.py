"""Who may connect to a server over the network, and what a peer without the keys can do there: nothing."""

import socket
import threading
from dataclasses import replace

import pytest
import zmq

from melissa_gen.protocol.authenticator import Authenticator
from melissa_gen.protocol.contact import Contact, Curve
from melissa_gen.protocol.handshake import Handshake
from melissa_gen.protocol.sockets import bind_socket, connect_socket
from tests.conftest import wait_for

PATIENCE = 10_000
NULL_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
SILENCE = 300


class Server:
    """A data or control socket on tcp."""

    def __init__(self, *, encrypt_data=False, data=True, authenticated=True):
        self.context = zmq.Context()
        self.contact = Contact.new(0, "here", ipc=False, encrypt_data=encrypt_data)
        self.authenticator = Authenticator(self.context, self.contact) if authenticated else None
        self.data = data
        self.socket, self.endpoint = bind_socket(
            self.context,
            self.contact,
            "data-0",
            "127.0.0.1",
            data=data,
            limit=100_000,
            authenticator=self.authenticator,
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


@pytest.mark.parametrize("kind", SOCKETS)
def test_a_peer_that_does_not_authenticate_is_counted(serve, kind):
    server = serve(**SOCKETS[kind])
    host, _, port = server.endpoint.removeprefix("tcp://").rpartition(":")
    refused = []
    with socket.create_connection((host, int(port))) as peer:
        peer.sendall(NULL_GREETING)
        wait_for(lambda: refused.extend(server.authenticator.take_refused()) or refused, "refusal")
    assert refused[0].source == "connections to data-0"
    assert refused[0].reason.endswith("it uses another security mechanism")


STRANGE = (
    [b"1.0"],
    [b"1.0", b"1", b"\xff", b"", b"", b"PLAIN"],
    [b"", b"", b"", b"", b"", b"CURVE"],
)


@pytest.mark.parametrize("request_frames", STRANGE)
def test_a_malformed_request_is_refused_and_ends_nothing(serve, request_frames):
    """The thread of the authenticator lives on, and the context can end, which waits for its sockets."""
    server = serve()
    asking = server.context.socket(zmq.REQ)
    asking.connect("inproc://zeromq.zap.01")
    asking.send_multipart(request_frames)
    assert asking.poll(PATIENCE)
    assert asking.recv_multipart()[2] == b"400"
    asking.close()
    peer = server.connect()
    peer.send(b"hello")
    assert server.socket.poll(PATIENCE)


def test_the_context_of_a_server_ends_while_strangers_are_connected(serve):
    server = serve()
    host, _, port = server.endpoint.removeprefix("tcp://").rpartition(":")
    silent = socket.create_connection((host, int(port)))
    garbage = socket.create_connection((host, int(port)))
    garbage.sendall(bytes(range(256)))
    peers = [server.connect(contact) for contact in (None, stranger(server.contact, "data"))]
    for peer in peers:
        peer.send(b"hello")
    assert server.socket.poll(PATIENCE)
    identity, _ = server.socket.recv_multipart()
    server.socket.send_multipart([identity, bytes(50_000)])
    server.socket.close()
    ending = threading.Thread(target=server.context.term, daemon=True)
    ending.start()
    ending.join(PATIENCE / 1000)
    assert not ending.is_alive()
    silent.close()
    garbage.close()


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

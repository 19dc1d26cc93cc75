"""The ends of the server's sockets in one process, and the settings of torch."""

import shutil
from dataclasses import replace

import pytest
import zmq

from melissa_gen.protocol import json_messages, wire
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.sockets import bind_socket, connect_socket
from tests.unit.server.ingest_rank import Rank

PATIENCE_MILLISECONDS = 10_000


class Peer:
    """A DEALER to one of the server's sockets."""

    def __init__(self, context, contact, endpoint):
        self.contact = contact
        self.socket = connect_socket(context, contact, endpoint)

    def send(self, message, *payload, epoch=None, rank=0, token=None):
        epoch = self.contact.epoch if epoch is None else epoch
        head = wire.encode(message, epoch, rank, token or self.contact.token)
        self.socket.send_multipart([head, *payload])

    def send_json(self, kind, **values):
        self.socket.send_multipart(json_messages.pack(self.contact.token, {"type": kind, **values}))

    def receive(self, *kinds):
        """Returns the next message, which must be of one of these kinds."""
        assert self.socket.poll(PATIENCE_MILLISECONDS), "no answer"
        return wire.decode(self.socket.recv(), *kinds)

    def receive_json(self, *kinds):
        """The next control message of one of these kinds; others are passed over."""
        while True:
            assert self.socket.poll(PATIENCE_MILLISECONDS), f"no {kinds}"
            message = json_messages.unpack(self.contact.token, self.socket.recv_multipart())
            if message["type"] in kinds:
                return message

    def wait(self, kind, condition):
        """The first control message of this kind for which the condition holds."""
        while not condition(message := self.receive_json(kind)):
            pass
        return message

    def silent(self, milliseconds=0):
        return not self.socket.poll(milliseconds)


@pytest.fixture
def context():
    with zmq.Context() as context:
        yield context
        context.destroy(linger=0)


@pytest.fixture
def contact():
    contact = Contact.new(5, "node17", ipc=True, encrypt_data=False)
    yield contact
    shutil.rmtree(contact.runtime_folder)


@pytest.fixture
def bound(context, contact):
    """All sockets of a server of one rank: contact with endpoints, and the sockets by name."""
    sockets, endpoints = {}, {}
    for name in ("control", "heartbeat", "data"):
        limit = 100_000 if name == "data" else 16 << 20
        sockets[name], endpoints[name] = bind_socket(context, contact, name, "", limit=limit)
    complete = replace(
        contact,
        control=endpoints["control"],
        heartbeat=endpoints["heartbeat"],
        data=(endpoints["data"],),
    )
    return complete, sockets


@pytest.fixture
def peer(context, bound):
    """Makes peers of the control, heartbeat or data socket."""

    def make(name, contact=None):
        complete = contact or bound[0]
        endpoint = complete.data[0] if name == "data" else getattr(complete, name)
        return Peer(context, complete, endpoint)

    return make


@pytest.fixture
def rank(context, bound):
    """A server rank with its ingest thread, which must end without an error."""
    rank = Rank(context, bound)
    yield rank
    rank.end()
    assert not rank.ingest.running
    assert rank.state.error is None


@pytest.fixture
def client(peer, rank):
    """A client at the data socket of `rank`."""
    return peer("data")


@pytest.fixture
def torch_settings():
    """Restores the settings of torch, which a server rank makes for its process."""
    import torch

    threads, products = torch.get_num_threads(), torch.get_float32_matmul_precision()
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(products)
    torch.set_flush_denormal(False)

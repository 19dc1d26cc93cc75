"""Sends invalid messages to a server; a storm runs this inside the network of its machine."""

import contextlib
import json
import random
import sys
from pathlib import Path

import zmq

from melissa_gen.protocol import wire
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.sockets import connect_socket
from tests.faults.test_strangers import messages, pester

# Magic number, version, kind, epoch, rank and half of the token. Control messages do not use the rank, so a flipped bit
# there can make a stranger a client, which then is never heard of again.
CHECKED_BYTES = 24


def damaged(contact, chance):
    """Yields messages of authenticated peers with a flipped bit, cut short, and repeated."""
    part = wire.Part(0, 0, 0, 1, 1, 0, 0, (wire.Block(0, (0, 0), (12, 4)),))
    kinds = (
        wire.Hello("stranger", "elsewhere", 1, 1),
        wire.Alive("stranger", 0, 0, 0, 0.0, 0.0),
        wire.Next(-1),
        part,
    )
    for kind in kinds:
        whole = wire.encode(kind, contact.epoch, 0, contact.token)
        flipped = bytearray(whole)
        flipped[chance.randrange(CHECKED_BYTES)] ^= 1 << chance.randrange(8)
        payload = [bytes(192)] if kind is part else []
        for header in (bytes(flipped), whole[: chance.randrange(1, CHECKED_BYTES)]):
            yield [header, *payload]
            yield [header, *payload]


def vanishing(contact):
    """Yields the messages of a client that gets a simulation and is never heard of again."""
    for kind in (wire.Hello("vanished", "elsewhere", 1, 1), wire.Next(-1)):
        yield [wire.encode(kind, contact.epoch, 0, contact.token)]


def main(path, seed):
    """Sends all messages to all sockets of a server."""
    contact, chance = Contact.read(Path(path)), random.Random(seed)
    context = zmq.Context()
    endpoints = [(contact.control, False), (contact.heartbeat, False)]
    for endpoint, data in [*endpoints, *((endpoint, True) for endpoint in contact.data)]:
        with contextlib.suppress(OSError):
            pester(endpoint)
        known = connect_socket(context, contact, endpoint, data=data)
        stranger = context.socket(zmq.DEALER)
        stranger.connect(endpoint)
        for peer in (known, stranger):
            peer.linger = 1000
            for frames in (
                *messages(json.loads(Path(path).read_text())),
                *damaged(contact, chance),
                *(vanishing(contact) if endpoint == contact.control else ()),
            ):
                # A peer that the server has refused, or whose server has ended, has no connection to wait for.
                with contextlib.suppress(zmq.Again):
                    peer.send_multipart(frames, zmq.NOBLOCK)
            peer.close()
    context.destroy(linger=1000)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

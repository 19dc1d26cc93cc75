"""Unauthenticated peers, and peers of another version or another server: they are refused, and no data is lost."""

import contextlib
import socket
import stat
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import zmq

from melissa_gen.protocol import wire
from melissa_gen.protocol.contact import Contact, Curve
from melissa_gen.protocol.sockets import connect_socket
from tests.conftest import wait_for
from tests.listening import accepts, listening_sockets

pytestmark = pytest.mark.mpi

SOLVER = Path(__file__).parent / "solver.py"
ZMTP_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
BYTES = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    bytes(range(256)) * 40,
    b"\xff" * 64,
    ZMTP_GREETING,
    ZMTP_GREETING + b"\x04\xff" + b"A" * 40,
    ZMTP_GREETING + b"\x02" + struct.pack(">Q", 1 << 62) + b"B" * 100,  # a frame of four exabytes
    b"",
)


def raw_socket(endpoint):
    """A plain socket connected to where a ZeroMQ socket listens."""
    kind, _, address = endpoint.partition("://")
    if kind == "ipc":
        opened = socket.socket(socket.AF_UNIX)
        opened.connect(address)
        return opened
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)))


def pester(endpoint):
    """Sends bytes that are not ZeroMQ, or incomplete messages."""
    for data in BYTES:
        with raw_socket(endpoint) as opened:
            try:
                opened.sendall(data)
            except OSError:
                continue  # it hung up


def messages(contact):
    """Well-formed ZeroMQ messages with invalid content, and messages of peers of other runs."""
    token, epoch = bytes.fromhex(contact["token"]), contact["epoch"]
    hello = wire.encode(wire.Hello("stranger", "elsewhere", 1, 1), epoch, 0, token)
    alive = wire.encode(wire.Alive("stranger", 0, 0, 0, 0.0, 0.0), epoch, 0, token)
    part = wire.Part(0, 0, 0, 1, 1, 0, 0, (wire.Block(0, (0, 0), (12, 4)),))
    huge = wire.Part(0, 0, 0, 1, 1, 0, 0, (wire.Block(0, (0, 0), (2**32 - 1, 4)),))
    yield [b""]
    yield [b"hello"]
    yield [bytes(1 << 16)]
    yield [b"J", b"wrong token", b"{}"]
    yield [b"J", token, b"[[["]
    yield [b"a", b"b", b"c", b"d"]
    yield [hello[:20]]
    yield [hello[:4] + struct.pack("<H", 99) + hello[6:]]
    yield [alive[:4] + struct.pack("<H", 99) + alive[6:]]
    yield [wire.encode(wire.Hello("stranger", "elsewhere", 1, 1), epoch + 7, 0, token)]
    yield [wire.encode(wire.Hello("stranger", "elsewhere", 1, 1), epoch, 0, bytes(16))]
    yield [wire.encode(wire.Next(-1), epoch, 0, token)]
    yield [wire.encode(huge, epoch, 0, token), bytes(192)]
    yield [wire.encode(part, epoch + 7, 0, token), bytes(192)]


def strangers(context, run_dir, endpoint):
    """Peers of an endpoint: one that knows nothing, one with other keys, and one that has stolen the contact file."""
    stolen = Contact.read(run_dir / "contact.json")
    data = endpoint in stolen.data
    simple = context.socket(zmq.DEALER)
    simple.sndhwm = 0
    simple.connect(endpoint)
    other = replace(stolen, token=bytes(16), curve=stolen.curve and Curve.generate())
    if stolen.curve:
        keys = {"server_public": stolen.curve.server_public}
        other = replace(other, curve=replace(other.curve, **keys))
    return [simple, *(connect_socket(context, c, endpoint, data=data) for c in (other, stolen))]


def answers(contact, *sent):
    """The server's answers on the control socket to a peer's messages."""
    context = zmq.Context()
    peer = context.socket(zmq.DEALER)
    peer.connect(contact["control"])
    found = []
    for raw in sent:
        peer.send(raw)
        assert peer.poll(60_000), "no answer"
        found.append(wire.decode(peer.recv(), wire.Refused).reason)
    context.destroy(linger=0)
    return found


def assert_a_client_is_told_why(contact):
    """Says hello as a client of another version, epoch, and number of ranks."""
    token, epoch = bytes.fromhex(contact["token"]), contact["epoch"]
    hello = wire.encode(wire.Hello("stranger", "elsewhere", 1, 1), epoch, 0, token)
    told = answers(
        contact,
        hello[:4] + struct.pack("<H", wire.VERSION + 1) + hello[6:],
        wire.encode(wire.Hello("stranger", "elsewhere", 1, 1), epoch + 1, 0, token),
        wire.encode(wire.Hello("stranger", "elsewhere", 1, 5), epoch, 0, token),
    )
    assert told[0] == (
        f"a peer of protocol version {wire.VERSION + 1}; version {wire.VERSION} is spoken here"
    )
    assert told[1] == "a newer peer of epoch 1; this is epoch 0"
    assert told[2].startswith("job stranger has 5 MPI ranks; the study's simulation.processes is 1")


def assert_open_to(run, runs, contact):
    """Asserts where the tcp sockets of a server listen, and which of them an unauthenticated peer can reach.

    MPI's are not ours: the port of mpirun, which all its processes inherit, and those of its network library.
    """
    # The sockets of torch are closed to others by then.
    run.wait_batch()
    ranks = listening_sockets(runs.ranks("melissa_gen.server"))
    assert len(ranks) == 2
    others = [runs.ranks(f"melissa_gen.server.{name}") for name in ("coordination", "ingest")]
    assert [len(pids) for pids in others] == [1, 2]
    servers = ranks | listening_sockets([pid for pids in others for pid in pids])
    promised = {int(endpoint.rpartition(":")[2]) for endpoint in endpoints_of(contact)}
    on_loopback = {s for found in servers.values() for s in found if s.address == "127.0.0.1"}
    open_ports = {s.port for s in on_loopback if accepts(s)}
    library = {s.port for s in on_loopback} - promised
    assert promised <= open_ports
    # Those of gloo and of the rendezvous store, and perhaps one of MPI's on each rank.
    assert len(library) >= 3
    assert len(open_ports - promised) <= len(ranks)
    wildcards = [{s for s in found if s.address in ("0.0.0.0", "::")} for found in servers.values()]
    assert all(len(found) <= 1 for found in wildcards), wildcards
    for found in (s for sockets in servers.values() for s in sockets if accepts(s)):
        pester(f"tcp://{found.address}:{found.port}")
    clients = listening_sockets(runs.ranks("solver.py"))
    assert all(len(found) <= 1 for found in clients.values()), "a client listens"


def endpoints_of(contact):
    return [contact["control"], contact["heartbeat"], *contact["data"]]


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_strangers_are_refused_and_nothing_is_lost(runs, transport):
    study = runs.study(
        {
            "simulation.command": ["python", "solver.py", "--gate", "open"],
            "simulation.count": 16,
            "server.ranks": 2,
            "server.transport": transport,
            "server.encrypt": "control",
        },
        solver=SOLVER,
    )
    run = runs.start(study)
    contact = run.contact()
    assert stat.S_IMODE((run.run_dir / "contact.json").stat().st_mode) == 0o600
    if transport == "ipc":
        assert stat.S_IMODE(Path(contact["runtime_folder"]).stat().st_mode) == 0o700
    else:
        assert contact["control"].startswith("tcp://127.0.0.1:")
    run.wait_event("simulation_issued", 3)
    endpoints = endpoints_of(contact)
    assert len(endpoints) == 4
    if transport == "tcp":
        assert_open_to(run, runs, contact)
    # A socket that is not referenced is closed.
    context, peers = zmq.Context(), []
    try:
        for endpoint in endpoints:
            pester(endpoint)
            peers.append(strangers(context, run.run_dir, endpoint))
            for peer in peers[-1]:
                for frames in messages(contact):
                    # A peer that the server has refused has no connection to send on.
                    with contextlib.suppress(zmq.Again):
                        peer.send_multipart(frames, zmq.NOBLOCK)
        if transport == "ipc":
            assert_a_client_is_told_why(contact)
        expected = {"control", "heartbeat", "data of rank 0", "data of rank 1"}
        # A stranger with other keys does not get as far as that.
        names = ("control", "heartbeat", "data-0", "data-1") if transport == "tcp" else ()
        expected |= {f"connections to {name}" for name in names}
        wait_for(lambda: expected <= {e["what"] for e in run.events("refused")}, "all refusals")
    finally:
        context.destroy(linger=0)
        (study.parent / "open").touch()
    run.wait().assert_finished()
    refused = {(event["what"], event["reason"]) for event in run.events("refused")}
    reasons = {reason for _, reason in refused}
    assert f"a peer of protocol version 99; version {wire.VERSION} is spoken here" in reasons
    assert "a newer peer of epoch 7; this is epoch 0" in reasons
    assert "a message that does not start with MGEN: not a melissa_gen peer" in reasons
    assert any("is outside the shape (12, 4)" in reason for reason in reasons)
    assert "a peer of protocol version 99" in run.output
    # However many messages there were: one event for each kind, and one with the rest of their number.
    assert len(run.events("refused")) <= 2 * len(refused)
    summary = run.summary
    assert summary["simulations"]["completed"] == 16
    assert summary["samples"]["received"] >= 160
    attempts = [line["attempts"] for line in run.simulations().values()]
    assert attempts == [1] * 16

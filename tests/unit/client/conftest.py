"""A server in a thread that answers clients and keeps what they send."""

import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
import zmq

from melissa_gen.errors import ProtocolError
from melissa_gen.protocol import wire
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.session import Session
from melissa_gen.protocol.shared_memory import SharedView, this_machine
from melissa_gen.protocol.sockets import bind_socket


class Server:
    """Issues simulations; it reads its data socket only while `reads` is set.

    `shared`: whether clients are asked to share their memory, an offer that passes the gate; `maps`: whether the
    server can then read it.
    """

    def __init__(
        self,
        folder,
        fields,
        *,
        steps=3,
        count=2,
        credit=4,
        chunk=1,
        latency=60.0,
        heartbeat_timeout=60.0,
        reads=True,
        shared=False,
        maps=True,
        inputs=(),
    ):
        self.maps, self.views, self.sessions = maps, {}, {}
        self.passes = 1 + int(shared)
        self.fields, self.steps, self.count, self.credit = fields, steps, count, credit
        self.chunk, self.latency = chunk, latency
        self.heartbeat_timeout = heartbeat_timeout
        self.declared_inputs, self.inputs = tuple(inputs), {}
        self.context, self.sockets = zmq.Context(), {}
        self.contact = self.open_sockets(this_machine() if shared else "elsewhere")
        self.file = folder / "contact.json"
        self.contact.write(self.file)
        self.reads = threading.Event()
        if reads:
            self.reads.set()
        self.beats = True
        self.stop_reason = None
        self.cuts, self.parts, self.finalized = [], [], []
        self.failed, self.hellos, self.alive = [], [], []
        self.changed = threading.Condition()
        self.issued = 0
        self.closing = False
        self.error = None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def open_sockets(self, machine):
        """Binds the three sockets; returns the contact with their endpoints."""
        contact = Contact.new(5, "node17", ipc=True, encrypt_data=False)
        endpoints = {}
        for name in ("control", "heartbeat", "data"):
            limit = 64 << 20
            # A queue of one message: what the server does not read stays in the client.
            queue = 1 if name == "data" else 1000
            self.sockets[name], endpoints[name] = bind_socket(
                self.context, contact, name, "", limit=limit, queue=queue
            )
            # Answers have room; the queue length of a socket holds for what it binds to later.
            self.sockets[name].unbind(endpoints[name])
            self.sockets[name].sndhwm = 1000
            self.sockets[name].bind(endpoints[name])
        return replace(
            contact,
            control=endpoints["control"],
            heartbeat=endpoints["heartbeat"],
            data=(endpoints["data"],),
            machines=(machine,),
        )

    def run(self):
        try:
            while not self.closing:
                for name, socket in self.sockets.items():
                    while self.is_open(name) and socket.poll(1):
                        identity, *frames = socket.recv_multipart()
                        self.passes -= name == "data"
                        with self.changed:
                            getattr(self, name)(identity, frames)
                            self.changed.notify_all()
        except BaseException as error:
            self.error = error

    def is_open(self, name):
        return name != "data" or self.reads.is_set() or self.passes > 0

    def answer(self, name, identity, message, *, ordered=True):
        session = self.sessions.setdefault((name, identity), Session())
        ordered = ordered and name != "heartbeat"
        number = session.number() if ordered else 0
        raw = wire.encode(
            message, self.contact.epoch, 0, self.contact.token, number, session.received
        )
        self.sockets[name].send_multipart([identity, session.keep(raw) if ordered else raw])

    def accepts(self, name, identity, frame):
        """Whether a message is the next one; answers a ping."""
        header = wire.decode_header(frame)
        session = self.sessions.setdefault((name, identity), Session())
        if not session.accept(header.number, header.received):
            return False
        if header.kind != wire.Ping.KIND:
            return True
        ping = wire.decode(frame, wire.Ping)
        self.answer(name, identity, wire.Pong(ping.sent), ordered=False)
        for lost in session.after_ping():
            self.sockets[name].send_multipart([identity, lost])
        return False

    def control(self, identity, frames):
        try:
            header = wire.decode_header(frames[0])
            wire.check_peer(header, self.contact.epoch, self.contact.token)
        except ProtocolError as error:
            self.answer("control", identity, wire.Refused(str(error)))
            return
        if not self.accepts("control", identity, frames[0]):
            return
        message = wire.decode(frames[0], wire.Hello, wire.Next, wire.Failed)
        if isinstance(message, wire.Hello):
            self.hellos.append(message)
            welcome = wire.Welcome(
                self.credit,
                self.chunk,
                1,
                self.steps,
                self.latency,
                0.05,
                self.heartbeat_timeout,
                (wire.StudyParameter("a", "integer"), wire.StudyParameter("b")),
                self.fields,
                self.declared_inputs,
            )
            self.answer("control", identity, welcome)
        elif isinstance(message, wire.Failed):
            self.failed.append(message)
        elif self.stop_reason is not None:
            return  # the heartbeat tells
        elif self.issued < self.count:
            number = max(message.simulation, self.issued)
            self.issued += 1
            self.answer("control", identity, wire.Solve(number, 0, (1.0 + number, -2.5)))
        else:
            self.answer("control", identity, wire.Done())

    def heartbeat(self, identity, frames):
        beat = wire.decode(frames[0], wire.Alive)
        self.alive.append(beat)
        if self.beats:
            told = beat if self.stop_reason is None else wire.Stop(self.stop_reason)
            self.answer("heartbeat", identity, told)

    def data(self, identity, frames):
        if not self.accepts("data", identity, frames[0]):
            return
        header = wire.decode_header(frames[0])
        kinds = (wire.Part, wire.Finalize, wire.Share, wire.Input)
        message = wire.decode_body(header, frames[0], *kinds)
        if isinstance(message, wire.Input):
            spec = self.declared_inputs[message.block.field]
            whole = np.frombuffer(message.values, spec.dtype).reshape(message.block.extent)
            self.inputs[message.simulation, spec.name] = (whole, len(self.parts))
            return
        if isinstance(message, wire.Share):
            self.views[identity] = SharedView(message.pid, message.descriptor, message.nonce)
            credit = wire.Credit(tuple(range(message.buffers)))
            self.answer("data", identity, credit if self.maps else wire.Refused("not here"))
            return
        if isinstance(message, wire.Finalize):
            self.finalized.append(message)
            return
        fields = [self.fields[block.field] for block in message.blocks]
        places = [
            (block.extent, spec.dtype) for spec, block in zip(fields, message.blocks, strict=True)
        ]
        if self.maps and identity in self.views:
            assert len(frames) == 1
            where = (message.buffer, message.place, message.count)
            found = self.views[identity].read(where, self.chunk, places)
        else:
            found = [
                np.frombuffer(raw, dtype).reshape((message.count, *extent))
                for raw, (extent, dtype) in zip(frames[1:], places, strict=True)
            ]
        for n in range(message.count):
            values = {spec.name: every[n].copy() for spec, every in zip(fields, found, strict=True)}
            self.parts.append((replace(message, step=message.step + n, count=1), values))
        self.cuts.append((message.simulation, message.step, message.count))
        self.answer("data", identity, wire.Credit((message.buffer,)))

    def wait(self, condition):
        with self.changed:
            assert self.changed.wait_for(lambda: condition(self), 10)

    def close(self):
        self.closing = True
        self.thread.join(timeout=10)
        assert not self.thread.is_alive()
        for socket in self.sockets.values():
            socket.close(linger=0)
        self.context.term()
        shutil.rmtree(self.contact.runtime_folder, ignore_errors=True)
        assert self.error is None


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    for name in ("SERVER", "OFFLINE", "SIMULATION", "JOB"):
        monkeypatch.delenv(f"MELISSA_GEN_{name}", raising=False)


@pytest.fixture
def serve(tmp_path, monkeypatch):
    servers = []

    def make(*fields, **options):
        fields = fields or (wire.StudyField("u", "float32", (4, 3)),)
        folder = tmp_path / f"server-{len(servers)}"
        folder.mkdir()
        servers.append(Server(folder, tuple(fields), **options))
        monkeypatch.setenv("MELISSA_GEN_SERVER", str(servers[-1].file))
        return servers[-1]

    yield make
    before = threading.active_count()
    for server in servers:
        server.close()
    assert threading.active_count() == before - len(servers)

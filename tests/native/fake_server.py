"""A fake training server: it exchanges the same messages and does not train."""

import os
import shutil
import threading
from dataclasses import replace

import numpy as np
import zmq

from melissa_gen.protocol import wire
from melissa_gen.protocol.authenticator import Authenticator
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.session import Session
from melissa_gen.protocol.shared_memory import SharedView, this_machine
from melissa_gen.protocol.sockets import bind_socket


def declared_parameters(names, integers):
    """The parameters of a study as its server announces them to clients."""
    return tuple(wire.StudyParameter(n, "integer" if n in integers else "real") for n in names)


def declared_fields(fields):
    """The fields or inputs of a study, name to (dtype, shape), as its server announces them to clients."""
    return tuple(wire.StudyField(n, dtype, tuple(shape)) for n, (dtype, shape) in fields.items())


class FakeServer:
    """Issues simulations, stores what arrives, and returns credit, in one thread.

    Args:
        folder: For the contact file.
        fields: Name to (dtype, shape).
        time_steps: Of each simulation.
        simulations: Parameters of each.
        names: Names of the parameters.
        ranks: Server ranks: data sockets.
        ipc: Unix sockets, else tcp with CURVE.
        credit: Buffers per client rank and server rank.
        chunk: Time steps that a buffer holds.
        latency: Seconds that a client may collect time steps for one message.
        heartbeat_timeout: Seconds after which clients take a silent server for lost.
        mute_after: Parts after which it neither gives credit nor answers heartbeats.
        stop: Reason to end clients with, as answer to heartbeats.
        refuse: Reason to refuse clients with.
        shared: Clients are asked to share their memory.
        maps: Whether the server can then read it.
        reads: Whether it reads its data sockets all the time, or only up to the first ping and once `reads` is set.
        noise: It answers heartbeats with bytes that are no message.
        inputs: Name to (dtype, shape) of the inputs of a simulation.
        encrypt_data: Whether its data sockets are encrypted; otherwise clients log in to them.

    Attributes:
        samples: (simulation, step) to name to the whole field, NaN where nothing arrived.
        inputs: (simulation, name) to the whole input, NaN where nothing arrived.
        cuts: (simulation, first time step, number of time steps) of each part.
        finalized: (simulation, client rank, server rank) to steps.
        failed: The Failed messages.
        hello: The last Hello.
        beats: The Alive messages.
        told_done: Set once a client was told that nothing is left.
    """

    def __init__(
        self,
        folder,
        fields,
        time_steps,
        simulations,
        names,
        *,
        ranks=1,
        ipc=True,
        credit=2,
        chunk=1,
        latency=60.0,
        heartbeat_timeout=20.0,
        mute_after=None,
        stop=None,
        refuse=None,
        shared=False,
        maps=True,
        reads=True,
        noise=False,
        integers=(),
        encrypt_data=True,
        inputs=None,
    ):
        self.noise, self.told_done, self.reads = noise, threading.Event(), threading.Event()
        if reads:
            self.reads.set()
        self.maps, self.views, self.sessions = maps, {}, {}
        self.fields, self.time_steps = fields, time_steps
        self.todo, self.names = list(enumerate(simulations)), names
        self.welcome = wire.Welcome(
            credit,
            chunk,
            ranks,
            time_steps,
            latency,
            0.1,
            heartbeat_timeout,
            declared_parameters(names, integers),
            declared_fields(fields),
            declared_fields(inputs or {}),
        )
        self.mute_after, self.stop, self.refuse = mute_after, stop, refuse
        self.samples, self.finalized, self.failed, self.beats = {}, {}, [], []
        self.cuts, self.inputs = [], {}
        self.hello, self.parts, self.error = None, 0, None
        self.context = zmq.Context()
        self.contact = self._open_sockets(ranks, ipc, encrypt_data, shared)
        self.path = folder / "contact.json"
        self.contact.write(self.path)
        self.closing = False
        self.thread = threading.Thread(target=self._guarded, daemon=True)
        self.thread.start()

    def _open_sockets(self, ranks, ipc, encrypt_data, shared):
        """Binds all sockets; returns the contact with their endpoints."""
        contact = Contact.new(7, "here", ipc=ipc, encrypt_data=encrypt_data)
        if not ipc:
            Authenticator(self.context, contact)
        self.control, control = bind_socket(self.context, contact, "control", "127.0.0.1")
        self.heartbeat, heartbeat = bind_socket(self.context, contact, "heartbeat", "127.0.0.1")
        opened = [
            bind_socket(
                self.context, contact, f"data-{r}", "127.0.0.1", data=True, limit=1 << 30, queue=0
            )
            for r in range(ranks)
        ]
        self.data = [one for one, _ in opened]
        return replace(
            contact,
            control=control,
            heartbeat=heartbeat,
            data=tuple(endpoint for _, endpoint in opened),
            machines=(this_machine() if shared else "elsewhere",) * ranks,
        )

    @property
    def environment(self):
        return os.environ | {"MELISSA_GEN_SERVER": str(self.path), "MELISSA_GEN_JOB": "job"}

    def close(self):
        self.closing = True
        self.thread.join(timeout=30)
        self.context.destroy(linger=0)
        if self.contact.runtime_folder:
            shutil.rmtree(self.contact.runtime_folder, ignore_errors=True)
        if self.error is not None:
            raise self.error

    @property
    def mute(self):
        return self.mute_after is not None and self.parts >= self.mute_after

    def _guarded(self):
        try:
            self._run()
        except BaseException as error:
            self.error = error

    def _run(self):
        poller = zmq.Poller()
        for one in (self.control, self.heartbeat, *self.data):
            poller.register(one, zmq.POLLIN)
        unread = []
        while True:
            while unread and self.reads.is_set():
                poller.register(unread.pop(), zmq.POLLIN)
            ready = dict(poller.poll(50))
            if not ready and self.closing:  # what was sent before the client ended has arrived
                return
            if self.control in ready:
                self._on_control(*self.control.recv_multipart())
            if self.heartbeat in ready:
                identity, frame = self.heartbeat.recv_multipart()
                self.beats.append(wire.decode(self._checked(frame), wire.Alive))
                answer = self.beats[-1] if self.stop is None else wire.Stop(self.stop)
                if not self.mute and self.noise:
                    self.heartbeat.send_multipart([identity, b"noise"])
                elif not self.mute:
                    self._send(self.heartbeat, identity, answer)
            for rank, one in enumerate(self.data):
                if one in ready:
                    identity, frame, *payload = one.recv_multipart()
                    self._on_data(rank, identity, frame, *payload)
                    if not self.reads.is_set() and wire.decode_header(frame).kind == wire.Ping.KIND:
                        poller.unregister(one)
                        unread.append(one)

    def _checked(self, frame):
        wire.check_peer(wire.decode_header(frame), self.contact.epoch, self.contact.token)
        return frame

    def _accepts(self, where, identity, frame):
        """Whether a message is the next one; answers a ping."""
        header = wire.decode_header(self._checked(frame))
        session = self.sessions.setdefault(identity, Session())
        if not session.accept(header.number, header.received):
            return False
        if header.kind != wire.Ping.KIND:
            return True
        self._send(where, identity, wire.Pong(wire.decode(frame, wire.Ping).sent), ordered=False)
        for lost in session.after_ping():
            where.send_multipart([identity, lost])
        return False

    def _send(self, where, identity, message, *, ordered=True):
        session = self.sessions.setdefault(identity, Session())
        ordered = ordered and where is not self.heartbeat
        number = session.number() if ordered else 0
        packed = wire.encode(
            message, self.contact.epoch, 0, self.contact.token, number, session.received
        )
        where.send_multipart([identity, session.keep(packed) if ordered else packed])

    def _on_control(self, identity, frame):
        if not self._accepts(self.control, identity, frame):
            return
        message = wire.decode(frame, wire.Hello, wire.Next, wire.Failed)
        if isinstance(message, wire.Hello):
            self.hello = message
            answer = self.welcome if self.refuse is None else wire.Refused(self.refuse)
            self._send(self.control, identity, answer)
        elif isinstance(message, wire.Failed):
            self.failed.append(message)
        elif message.simulation >= 0:
            number, parameters = self.todo[message.simulation]
            self._send(self.control, identity, wire.Solve(number, 0, tuple(parameters)))
        elif self.todo:
            number, parameters = self.todo.pop(0)
            self._send(self.control, identity, wire.Solve(number, 0, tuple(parameters)))
        else:
            self._send(self.control, identity, wire.Done())
            self.told_done.set()

    def _on_data(self, rank, identity, frame, *payload):
        if not self._accepts(self.data[rank], identity, frame):
            return
        header = wire.decode_header(frame)
        message = wire.decode_body(header, frame, wire.Part, wire.Finalize, wire.Share, wire.Input)
        if isinstance(message, wire.Input):
            self._keep_input(message)
            return
        if isinstance(message, wire.Share):
            self.views[identity] = SharedView(message.pid, message.descriptor, message.nonce)
            credit = wire.Credit(tuple(range(message.buffers)))
            answer = credit if self.maps else wire.Refused("not here")
            self._send(self.data[rank], identity, answer)
            return
        if isinstance(message, wire.Finalize):
            assert message.ranks == self.hello.ranks
            assert rank == wire.owner(message.simulation, len(self.data))
            self.finalized[message.simulation, header.rank, rank] = message.steps
            return
        assert rank == wire.owner(message.simulation, len(self.data))
        assert message.ranks == self.hello.ranks
        assert message.buffer < self.welcome.credit
        places = [(b.extent, self.welcome.fields[b.field].dtype) for b in message.blocks]
        if self.maps and identity in self.views:
            assert not payload
            where = (message.buffer, message.place, message.count)
            payload = self.views[identity].read(where, self.welcome.chunk_steps, places)
        assert len(payload) == len(message.blocks) == len(self.fields)
        for block, (extent, dtype), raw in zip(message.blocks, places, payload, strict=True):
            values = np.frombuffer(raw, dtype).reshape((message.count, *extent))
            for step, one in enumerate(values, message.step):
                self._store(message.simulation, step, block, one)
        self.cuts.append((message.simulation, message.step, message.count))
        self.parts += 1
        if not self.mute:
            self._send(self.data[rank], identity, wire.Credit((message.buffer,)))

    def _keep_input(self, message):
        spec, (_, start, extent) = self.welcome.inputs[message.block.field], message.block
        assert not any(simulation == message.simulation for simulation, _ in self.samples)
        whole = self.inputs.setdefault(
            (message.simulation, spec.name), np.full(spec.shape, np.nan, spec.dtype)
        )
        region = tuple(slice(s, s + e) for s, e in zip(start, extent, strict=True))
        whole[region] = np.frombuffer(message.values, spec.dtype).reshape(extent)

    def _store(self, simulation, step, block, values):
        sample = self.samples.setdefault(
            (simulation, step),
            {name: np.full(shape, np.nan, dtype) for name, (dtype, shape) in self.fields.items()},
        )
        region = tuple(slice(s, s + e) for s, e in zip(block.start, block.extent, strict=True))
        target = sample[self.welcome.fields[block.field].name][region]
        assert np.isnan(target).all(), "blocks overlap, or a part came twice"
        target[...] = values

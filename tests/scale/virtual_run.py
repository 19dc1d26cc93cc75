"""A study in virtual time: clients, server ranks, launcher and rank 0, without processes and sockets.

The machines of launcher and rank 0, the ledger, and the records of some server ranks are the real ones, and all
messages are encoded and decoded. What a process does takes as long in virtual time as it takes here, so that a process
that is too slow is seen as one: its messages wait.

Server ranks are alike. Only the first ones keep records of each part (`detailed`). The clients of the others solve at
the pace of the solver, and the rank reports the end of each simulation.
"""

import math
import random
import time
from dataclasses import dataclass, field

from melissa_gen.builders.memory import staging_slots
from melissa_gen.protocol import wire
from melissa_gen.server.coordination.settings import control_settings
from tests.scale.control import Control, Launcher, report
from tests.scale.ingest_rank import TOKEN, Channel, IngestRank
from tests.scale.processes import LATENCY, EventQueue

TICK, LAUNCHER_TICK, ALIVE, REPORT = 0.1, 0.05, 1.0, 0.25
PARTS = 10
"""Parts of the clients whose heartbeats arrive at the same time."""
STARTING = (2.0, 8.0)
"""Shortest and longest time from the start of a client job to its first message (seconds)."""


@dataclass
class Client:
    """A client job: an MPI world that solves one simulation after the other.

    Attributes:
        job: Name of the job.
        identity: Of its control socket.
        channels: Its connections to server ranks, each of all its MPI ranks.
        solving: Simulation and attempt, or None.
        step: Time step that is solved.
        blocked: Whether it waits for credit.
        alive: Whether its processes exist.
        connected: Whether it has said hello.
    """

    job: str
    identity: bytes
    channels: dict[int, Channel] = field(default_factory=dict)
    solving: tuple[int, int] | None = None
    step: int = 0
    blocked: bool = False
    alive: bool = True
    connected: bool = False

    def socket(self, rank):
        """Returns the identity of the data socket of one of its ranks."""
        return self.identity + rank.to_bytes(4, "little")


class VirtualRun:
    """Runs a study.

    Args:
        study: The study.
        step_seconds: Time of the solver for a time step.
        detailed: Number of server ranks that keep records of each part.
        clock: CPU seconds of this thread.
        seed: Of the times at which jobs start.

    Attributes:
        queue: Virtual time.
        control: Rank 0.
        launcher: The launcher.
        ranks: The detailed server ranks, by number.
        clients: All living clients, by job.
        connections: Data connections of each server rank.
        most_connections: Largest number of data connections of a server rank.
        opened: Channels that were opened.
        most_channels: Largest number of channels of a client.
        samples: Time steps that the solvers have computed.
        solving: Number of clients that solve.
        all_solving: When all clients solved for the first time.
        died: Time of the deaths, or None.
        noticed: When rank 0 knew of the last death.
        recovered: When as many clients solved as before.
    """

    def __init__(self, study, step_seconds, detailed=1, clock=time.thread_time, seed=1):
        self.study, self.queue, self._step_seconds = study, EventQueue(), step_seconds
        self._random, self._server_ranks = random.Random(seed), study.server.ranks
        slots = staging_slots(study)
        self.ranks = {
            rank: IngestRank(rank, study, slots, self.queue, clock) for rank in range(detailed)
        }
        self.clients, self._by_identity = {}, {}
        self.connections = [0] * self._server_ranks
        self.most_connections = self.most_channels = self.opened = self.samples = self.solving = 0
        self.died = self.noticed = self.recovered = self.all_solving = None
        self._victims, self._deaths = set(), 0.0
        self.control = Control(study, self.queue, clock, self)
        self.launcher = Launcher(study, self.queue, clock, self)

    def run(self, deaths=0.0, limit=1e5):
        """Runs until all simulations are over.

        Args:
            deaths: Share of the clients that die in their second simulation, all in one moment.
            limit: Longest virtual time.
        """
        for period, call in (
            (TICK, self.control.tick),
            (LAUNCHER_TICK, self.launcher.tick),
            (ALIVE, self.launcher.alive),
        ):
            self._every(period, call)
        for number in range(self._server_ranks):
            offset = REPORT * number / self._server_ranks
            self.queue.at(offset, self._every, REPORT, self.control.json, report(number))
        heartbeat = control_settings(self.study).welcome.heartbeat
        for part in range(PARTS):
            self.queue.at(part * heartbeat / PARTS, self._every, heartbeat, self._beat, part)
        self._deaths = deaths
        self.queue.run(lambda: self.control.over or bool(self.control.failure), limit)

    def _every(self, period, call, *arguments):
        call(*arguments)
        self.queue.at(self.queue.now + period, self._every, period, call, *arguments)

    def _beat(self, part):
        beats = [
            wire.Alive(one.job, wire.SOLVING, one.solving[0] if one.solving else 0, one.step, 0, 0)
            for place, one in enumerate(self.clients.values())
            if place % PARTS == part and one.connected
        ]
        self.control.beats(beats)

    # What launcher and rank 0 do.

    def to_launcher(self, message):
        """Delivers a message of rank 0 to the launcher."""
        self.launcher.message(message)

    def to_control(self, message):
        """Delivers a message of the launcher to rank 0."""
        self.control.json(message)
        if message["type"] == "job_ended" and message["job"] in self._victims:
            self._victims.discard(message["job"])
            if not self._victims:
                self.noticed = self.control.process.free_at

    def to_rank(self, rank, message):
        """Delivers a message of rank 0 to a server rank."""
        if message["type"] == "closed" and rank in self.ranks:
            self.ranks[rank].close(message)

    def start(self, action):
        """Starts a client job."""
        client = Client(action.job, action.job.encode())
        self.clients[action.job] = client
        self._by_identity[client.identity] = client
        self.queue.at(self.queue.now + self._random.uniform(*STARTING), self._connect, client)

    def kill(self, job):
        """Kills a client job."""
        self._end(job, 143)

    def _connect(self, client):
        if client.alive:
            client.connected = True
            processes = self.study.simulation.processes
            self.control.client(client.identity, wire.Hello(client.job, "node", 1, processes))

    def to_client(self, identity, message):
        """Delivers a message of rank 0 to a client."""
        client = self._by_identity.get(identity)
        if client is None:
            return
        match message:
            case wire.Welcome():
                self.control.client(identity, wire.Next(wire.ANY))
            case wire.Solve():
                self._solve(client, message)
            case _:
                self._end(client.job, 0)

    # What clients do.

    def _solve(self, client, message):
        client.solving, client.step = (message.simulation, message.attempt), 0
        self.solving += 1
        owner = wire.owner(message.simulation, self._server_ranks)
        if owner not in client.channels:
            client.channels[owner] = Channel(self.study.flow)
            self.opened += 1
            self.most_channels = max(self.most_channels, len(client.channels))
            self.connections[owner] += self.study.simulation.processes
            self.most_connections = max(self.most_connections, self.connections[owner])
            self._ping(client, owner)
        if owner in self.ranks:
            self._later(self._step_seconds, self._send, client, client.solving)
        else:
            steps = self.study.simulation.time_steps
            self._later(steps * self._step_seconds, self._finish, client, client.solving)
        self._watch()

    def _later(self, seconds, call, *arguments):
        self.queue.at(self.queue.now + seconds, call, *arguments)

    def _ping(self, client, owner):
        if owner in self.ranks:
            ping = wire.Ping(0)
            self._deliver(client, owner, [ping] * self.study.simulation.processes, ordered=False)

    def _send(self, client, solving):
        """Sends a time step of all ranks of a client, or waits for credit."""
        if not client.alive or client.solving != solving:
            return
        owner = wire.owner(solving[0], self._server_ranks)
        channel = client.channels[owner]
        client.blocked = not channel.has_credit
        if client.blocked:
            return
        buffer, place = channel.take()
        ranks, step = self.study.simulation.processes, client.step
        parts = [
            wire.Part(*solving, step, 1, ranks, buffer, place, (wire.Block(0, (rank,), (1,)),))
            for rank in range(ranks)
        ]
        self._deliver(client, owner, parts, payload=self.study.sample_bytes // ranks)
        client.step += 1
        if client.step < self.study.simulation.time_steps:
            self._later(self._step_seconds, self._send, client, solving)
        else:
            self._finish(client, solving)

    def _finish(self, client, solving):
        """Reports the end of a simulation to its owner, and asks for the next one."""
        if not client.alive or client.solving != solving:
            return
        owner, ranks = wire.owner(solving[0], self._server_ranks), self.study.simulation.processes
        steps = self.study.simulation.time_steps
        client.solving = None
        self.solving -= 1
        self.samples += steps
        if owner in self.ranks:
            self._deliver(client, owner, [wire.Finalize(*solving, steps, ranks)] * ranks)
            self._ping(client, owner)
        else:
            message = report(owner, (*solving, steps, steps))
            self._later(LATENCY, self.control.json, message)
        self.control.client(client.identity, wire.Next(wire.ANY))

    def _deliver(self, client, owner, messages, payload=0, *, ordered=True):
        """Brings a message of each rank of a client to a detailed server rank, and its answers back."""
        channel, rank = client.channels[owner], self.ranks[owner]
        number = next(channel.numbers) if ordered else 0
        frames = [
            (client.socket(of), wire.encode(message, 0, of, TOKEN, number, channel.received))
            for of, message in enumerate(messages)
        ]
        returned, ended = rank.receive(frames, payload)
        when = rank.process.free_at + LATENCY
        for identity, buffers in returned:
            # All ranks of a client have the same credit: that of the first one is followed.
            if identity[-4:] == bytes(4):
                self.queue.at(when, self._credit, identity[:-4], owner, buffers)
        if ended is not None:
            self.queue.at(when, self.control.json, report(owner, ended))

    def _credit(self, identity, owner, buffers):
        client = self._by_identity.get(identity)
        if client is None:
            return
        client.channels[owner].give_back(buffers)
        if client.blocked and client.solving is not None:
            client.blocked = False
            self._send(client, client.solving)

    def _end(self, job, code):
        """Ends the processes of a client; the launcher learns it when it asks the scheduler next."""
        client = self.clients.pop(job, None)
        if client is None:
            return
        self.solving -= client.solving is not None
        client.alive, client.solving = False, None
        del self._by_identity[client.identity]
        for owner in client.channels:
            self.connections[owner] -= self.study.simulation.processes
        poll = self.study.launcher.poll
        when = math.ceil(self.queue.now / poll) * poll
        self.queue.at(when, self.launcher.ended, job, code)

    # Deaths.

    def _watch(self):
        """Notes when all clients solve, for the first time and after the deaths."""
        clients = self.study.launcher.clients
        if self.all_solving is None:
            if self.solving_all(clients):
                self.all_solving = self.queue.now
                if self._deaths:
                    wait = 1.5 * self.study.simulation.time_steps * self._step_seconds
                    self._later(wait, self._die)
        elif self.noticed is not None and self.recovered is None and self.solving_all(clients):
            self.recovered = self.queue.now

    def solving_all(self, clients):
        """Whether all clients solve, except those that have just asked for the next simulation."""
        return len(self.clients) == clients and self.solving >= 0.98 * clients

    def _die(self):
        self.died = self.queue.now
        count = round(self._deaths * len(self.clients))
        self._victims = set(self._random.sample(sorted(self.clients), count))
        for job in list(self._victims):
            self._end(job, 137)

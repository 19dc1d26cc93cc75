"""Rank 0 and the launcher without sockets: the real machines, and the messages between them as bytes."""

import json
from typing import Any

from melissa_gen.builders.prior import prior_of
from melissa_gen.launcher.jobs import machine as jobs
from melissa_gen.launcher.jobs.loop import limits_of
from melissa_gen.launcher.jobs.server_link import event_of
from melissa_gen.protocol import json_messages, wire
from melissa_gen.server.coordination.control_messages import read_control_message
from melissa_gen.server.coordination.events import (
    AttemptReport,
    ClientAsks,
    ClientHello,
    ForgetJob,
    JobEnded,
    JobsWaiting,
    LauncherHeard,
    LauncherHello,
    Moment,
    Pulse,
    RankHello,
    RankReport,
    ReportFailure,
    SendClient,
    SendLauncher,
    SendRank,
    Tick,
    WriteEvent,
)
from melissa_gen.server.coordination.fixed_design import FixedDesign
from melissa_gen.server.coordination.ledger import Ledger
from melissa_gen.server.coordination.machine import ControlMachine
from melissa_gen.server.coordination.settings import control_settings
from tests.scale.ingest_rank import TOKEN
from tests.scale.processes import LATENCY, Process

NOTHING = dict.fromkeys(("produced", "received", "lost", "duplicate", "rejected", "bytes"), 0)
SINK = dict.fromkeys(
    ("stored", "trained", "samples_drawn", "seen", "unseen", "capacity", "watermark"), 0
)


def report(rank, *finalized):
    """Returns the report of a server rank as it is sent to rank 0."""
    return {
        "type": "rank_report",
        "rank": rank,
        "last": False,
        "counters": NOTHING,
        "reservoir": {**SINK, "withdrawn": {}},
        "pending": 0,
        "training": {},
        "activity": "training",
        "finalized": list(map(list, finalized)),
        "refused": [],
        "first_pass": [],
    }


class Control:
    """Rank 0: control machine and ledger, heartbeats, and what they send.

    Args:
        study: The study.
        queue: Virtual time.
        clock: CPU clock.
        world: Has the methods `to_client`, `to_rank` and `to_launcher`, which are called with each message.
    """

    def __init__(self, study, queue, clock, world):
        simulation = study.simulation
        self.process, self._queue, self._world = Process(queue, clock), queue, world
        self.ledger = Ledger(simulation.count, simulation.time_steps, simulation.retries)
        design = FixedDesign(prior_of(study), simulation.count, 1)
        self.machine = ControlMachine(control_settings(study), self.ledger, design)
        self.pulses: dict[str, Pulse] = {}
        self.failure = ""
        self.over = False
        self._out: list[tuple[Any, ...]] = []
        for event in (*map(RankHello, range(study.server.ranks)), LauncherHello()):
            self._take(event)

    def client(self, identity, message):
        """Handles the message of a client."""
        raw = wire.encode(message, 0, 0, TOKEN, 1, 1)
        self._handle(self._read_client, identity, raw, size=len(raw))

    def json(self, message):
        """Handles the message of a server rank or of the launcher."""
        frames = json_messages.pack(TOKEN, message)
        self._handle(self._read_json, frames, size=sum(map(len, frames)))

    def tick(self):
        """Lets the machine check all timeouts, unless messages still wait."""
        if self.process.free_at <= self._queue.now:
            self._handle(lambda: self._take(Tick(dict(self.pulses))), messages=0)

    def beats(self, beats):
        """Handles heartbeats; the thread for them shares the interpreter with the control thread."""
        raws = [wire.encode(beat, 0, 0, TOKEN) for beat in beats]
        size = 2 * sum(map(len, raws))
        self.process.handle(self._read_beats, raws, messages=2 * len(raws), size=size)

    def _read_beats(self, raws):
        for raw in raws:
            wire.check_peer(wire.decode_header(raw), 0, TOKEN)
            beat = wire.decode(raw, wire.Alive)
            self.pulses[beat.job] = Pulse(beat, self._queue.now, self._queue.now)
            wire.encode(beat, 0, 0, TOKEN)

    def _handle(self, call, *arguments, messages=1, size=0):
        """Handles a message; the answers leave when the process has composed them."""
        self.process.handle(call, *arguments, messages=messages, size=size)
        out, self._out = self._out, []
        for deliver, size, *what in out:
            self.process.count(1, size)
            self._queue.at(self.process.free_at + LATENCY, deliver, *what)

    def _read_client(self, identity, raw):
        header = wire.decode_header(raw)
        wire.check_peer(header, 0, TOKEN)
        message = wire.decode_body(header, raw, wire.Hello, wire.Next)
        if isinstance(message, wire.Next):
            self._take(ClientAsks(identity, message.simulation))
        else:
            self._take(ClientHello(identity, message.job, "node", message.pid, message.ranks))

    def _read_json(self, frames):
        message = json_messages.unpack(TOKEN, frames)
        json_messages.numbers(message)
        read = read_control_message(message, 2**31)
        match message["type"]:
            case "rank_report":
                ended = tuple(AttemptReport(*one) for one in read.finalized)
                self._take(RankReport(read.rank, finalized=ended, activity=read.activity))
            case "job_ended":
                self._take(JobEnded(read.job, read.exit_code, read.simulation, read.ending))
                self._take(LauncherHeard())
            case "alive":
                self._take(JobsWaiting(read.queued, read.starting))
                self._take(LauncherHeard())

    def _take(self, event):
        """Lets the machine handle an event, and encodes what it sends."""
        now = Moment(self._queue.now, self._queue.now)
        for action in self.machine.handle(event, now):
            match action:
                case SendClient():
                    size = len(wire.encode(action.message, 0, 0, TOKEN, 1, 1))
                    self._out.append((self._world.to_client, size, action.client, action.message))
                case SendRank():
                    size = len(json.dumps(dict(action.message)))
                    self._out.append((self._world.to_rank, size, action.rank, action.message))
                case SendLauncher():
                    size = len(json.dumps(dict(action.message)))
                    self._out.append((self._world.to_launcher, size, action.message))
                case WriteEvent():
                    json.dumps(dict(action.fields))
                    self.over |= action.name == "reception_over"
                case ForgetJob():
                    self.pulses.pop(action.job, None)
                case ReportFailure():
                    self.failure = action.reason


class Launcher:
    """The launcher: its machine, and what it sends.

    Args:
        study: The study.
        queue: Virtual time.
        clock: CPU clock.
        world: Has the methods `start`, `kill` and `to_control`.
    """

    def __init__(self, study, queue, clock, world):
        self.process, self._queue, self._world = Process(queue, clock), queue, world
        self._state, _ = jobs.begin(limits_of(study), 0.0)
        self._state, _ = jobs.step(self._state, jobs.ServerReady())

    def message(self, message):
        """Handles a message of the server."""
        size = len(json.dumps(dict(message)))
        self._act(self.process.handle(self._read, message, messages=1, size=size))

    def ended(self, job, code):
        """Handles the end of a job that the scheduler has reported."""
        self._act(self.process.handle(self._step, jobs.JobExited(job, code)))

    def tick(self):
        """Lets the machine check all timeouts."""
        if self.process.free_at <= self._queue.now:
            self._act(self.process.handle(self._step, jobs.Tick(self._queue.now)))

    def alive(self):
        """Shows the server that the launcher is alive."""
        self._send({"type": "alive", **self._state.waiting_jobs})

    def _read(self, message):
        event = event_of(message)
        return [] if event is None else self._step(event)

    def _step(self, event):
        self._state, actions = jobs.step(self._state, event)
        return actions

    def _act(self, actions):
        for action in actions:
            match action:
                case jobs.StartClient():
                    self._queue.at(self.process.free_at, self._world.start, action)
                case jobs.StopClient() | jobs.KillJob():
                    self._queue.at(self.process.free_at, self._world.kill, action.job)
                case jobs.SendToServer():
                    self._send(action.message)

    def _send(self, message):
        self.process.count(1, len(json.dumps(dict(message))))
        self._queue.at(self.process.free_at + LATENCY, self._world.to_control, dict(message))

"""Clients, a server rank and a launcher whose TCP connections are cut: no message is lost or repeated."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import zmq

from melissa_gen.client import Client
from melissa_gen.launcher.jobs.server_link import ServerLink
from melissa_gen.protocol.authenticator import Authenticator
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.sockets import bind_socket
from melissa_gen.reservoir import SlotStore, create
from melissa_gen.server.coordination.control_thread import ControlThread
from melissa_gen.server.coordination.heartbeat_thread import HeartbeatThread
from melissa_gen.server.coordination.ledger import FINISHED, Ledger
from melissa_gen.server.coordination.settings import control_settings
from melissa_gen.server.coordination.status import StatusBoard
from melissa_gen.server.ingest.assembler import Assembler
from melissa_gen.server.ingest.receiver import Ingest
from melissa_gen.server.rank_state import RankState
from melissa_gen.study import load_study
from tests.conftest import wait_for
from tests.proxy import Proxy
from tests.unit.server.test_control_thread import HEAT, Points

COUNT, STEPS, MESH = 3, 8, 40
KINDS = ("data", "control", "rank", "launcher", "heartbeat")


class Server:
    """Rank 0 with its control, an ingest thread and the link of a launcher, each behind its own proxy."""

    def __init__(self, folder):
        self.study = load_study(
            HEAT,
            [
                f"simulation.count={COUNT}",
                f"simulation.time_steps={STEPS}",
                f"simulation.fields.temperature.shape=[{MESH},{MESH}]",
                "simulation.processes=1",
                "simulation.retries=0",
                "reservoir={capacity: 64, watermark: 2}",
                "training={batch_size: 2}",
                "server={ranks: 1, heartbeat: 0.1, heartbeat_timeout: 20, credit: 2}",
            ],
        )
        self.context = zmq.Context()
        contact = Contact.new(0, "here", ipc=False, encrypt_data=True)
        self.authenticator = Authenticator(self.context, contact)
        sockets = self.open_sockets(contact)
        whole = replace(contact, heartbeat=self.at("heartbeat"), data=(self.at("data"),))
        self.contact = replace(whole, control=self.at("control"), machines=("elsewhere",))
        self.start_control(contact, sockets)
        self.start_ingest(replace(whole, control=self.at("rank")), sockets["data"])
        self.link = ServerLink(replace(whole, control=self.at("launcher")))
        self.link.send({"type": "launcher_hello"})
        self.told = []
        # The launcher starts clients when it knows how many the server wants.
        wait_for(self.listen, "the server's answer to the launcher")
        self.file = folder / "contact.json"
        self.contact.write(self.file)

    def open_sockets(self, contact):
        """Binds the three sockets and puts a proxy of each kind before them; returns the sockets."""
        sockets, self.proxies, ends = {}, {}, {}
        for name in ("control", "heartbeat", "data"):
            limit = 1 << 20
            sockets[name], ends[name] = bind_socket(
                self.context, contact, name, "127.0.0.1", limit=limit, data=name == "data"
            )
        for kind in KINDS:
            self.proxies[kind] = Proxy(ends.get(kind, ends["control"]))
        return sockets

    def start_control(self, contact, sockets):
        self.events = []
        self.ledger = Ledger(COUNT, STEPS, 0)
        self.heartbeats = HeartbeatThread(contact, sockets["heartbeat"])
        self.control = ControlThread(
            self.study,
            contact,
            sockets["control"],
            self.heartbeats,
            self.ledger,
            Points(),
            StatusBoard(1),
            self.event,
        )
        self.control.start()

    def start_ingest(self, contact, socket):
        sizes = {"temperature": ((MESH, MESH), "float32")}
        store = SlotStore(sizes, 80, n_inputs=6)
        self.reservoir = create("reservoir", store, 64, 1, seed=0)
        self.state = RankState()
        fields = control_settings(self.study).welcome.fields
        assembler = Assembler(fields, STEPS, COUNT, 1, 0, 1, store, self.study.flow)
        self.ingest = Ingest(
            self.context,
            contact,
            socket,
            assembler,
            self.reservoir,
            self.state,
            0,
            float,
        )
        self.ingest.start()

    def at(self, kind):
        return self.proxies[kind].endpoint

    def event(self, event, **fields):
        self.events.append({"event": event, **fields})
        return self.events[-1]

    def listen(self):
        """One pass of the launcher's loop."""
        self.link.ping()
        self.told += self.link.receive()
        return self.told

    def finish(self):
        """Ends all threads in the order of a server rank."""
        self.ingest.close()
        self.control.wait_for_last_reports()
        done = threading.Thread(target=self.control.finish, args=("finished",))
        done.start()
        wait_for(lambda: self.listen() and self.told[-1]["type"] == "finished", "end")
        done.join()
        self.close()
        assert self.state.error is None
        assert self.control.error is None

    def close(self):
        self.link.close()
        self.heartbeats.close()
        for proxy in self.proxies.values():
            proxy.close()
        self.context.destroy(linger=0)


def solve(server, fault):
    """A client that solves all; `fault(number of steps sent so far)` is called before each step."""
    sent = 0
    with Client() as client:
        client.field("temperature", shape=(MESH, MESH))
        for simulation in client:
            for step in range(STEPS):
                fault(sent)
                simulation.send(temperature=np.full((MESH, MESH), 100.0 * simulation.number + step))
                sent += 1


@pytest.fixture
def server(tmp_path, monkeypatch):
    made = Server(tmp_path)
    monkeypatch.setenv("MELISSA_GEN_SERVER", str(made.file))
    monkeypatch.delenv("MELISSA_GEN_SIMULATION", raising=False)
    yield made
    assert not made.ingest.running


def assert_nothing_was_lost(server):
    assert [r.status for r in server.ledger.records] == [FINISHED] * COUNT
    assert [r.attempts for r in server.ledger.records] == [1] * COUNT
    held = server.reservoir.counters()
    assert held["stored"] == COUNT * STEPS
    names = [event["event"] for event in server.events]
    assert names.count("simulation_issued") == names.count("simulation_finished") == COUNT
    assert "client_lost" not in names
    assert "refused" not in names
    finished = [m for m in server.told if m["type"] == "finished"]
    assert len(finished) == 1
    assert len([m for m in server.told if m["type"] == "connected"]) == COUNT + 1


def once(server, kind, how, after=5):
    """A fault before one step."""

    def fault(sent):
        server.listen()
        proxy = server.proxies[kind]
        if sent == after and how == "cut":
            proxy.cut()
        elif sent == after:
            proxy.stall()
            threading.Timer(0.3, proxy.resume).start()

    return fault


@pytest.mark.parametrize("how", ["cut", "stall"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_is_cut_once(server, kind, how):
    solve(server, once(server, kind, how))
    wait_for(lambda: server.ledger.unfinished == 0, "all simulations", 20)
    server.finish()
    assert server.proxies[kind].cuts or how == "stall"
    assert_nothing_was_lost(server)


@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_is_cut_again_and_again(server, kind):
    server.proxies[kind].cut_after(900, 1600, 6000, 15_000)
    solve(server, lambda sent: server.listen())
    wait_for(lambda: server.listen() and server.ledger.unfinished == 0, "all simulations", 40)
    server.proxies[kind].cut_after()
    server.finish()
    assert server.proxies[kind].cuts
    assert_nothing_was_lost(server)

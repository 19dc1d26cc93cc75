import itertools
import math
import threading

import numpy as np
import pytest

from melissa_gen.client import Client
from melissa_gen.errors import ClientError, ServerLost, SimulationError
from melissa_gen.protocol import wire
from melissa_gen.protocol.failures import Failure
from tests.conftest import wait_for

U = wire.StudyField("u", "float32", (4, 3))
P = wire.StudyField("p", "float64", (5,))


WAYS = {"frames": {}, "shared": {"shared": True}, "refused": {"shared": True, "maps": False}}
"""How values get to the server: by socket, in shared memory, or by socket as the server can't read that memory."""


@pytest.mark.parametrize("way", WAYS)
def test_samples_arrive_unchanged(serve, way, caplog):
    server = serve(U, P, **WAYS[way])
    with Client() as client:
        client.field("p", shape=(5,))
        client.field("u", shape=(4, 3))
        for simulation in client:
            assert simulation.parameters == {"a": 1 + simulation.number, "b": -2.5}
            assert [type(value) for value in simulation.parameters.values()] == [int, float]
            for step in range(3):
                u = np.full((4, 3), 10 * simulation.number + step, "f4")
                simulation.send(u=u, p=np.arange(5) + step)
            server.wait(lambda s, n=simulation.number: len(s.parts) == 3 * (n + 1))
        server.wait(lambda s: len(s.finalized) == 2)
    assert [f.steps for f in server.finalized] == [3, 3]
    keys = [(part.simulation, part.step) for part, _ in server.parts]
    assert keys == list(itertools.product(range(2), range(3)))
    for part, values in server.parts:
        assert (values["u"] == 10 * part.simulation + part.step).all()
        assert np.array_equal(values["p"], np.arange(5.0) + part.step)
    assert not server.failed
    told = caplog.text.count("there is no shared memory for the fields (not here)")
    assert told == (way == "refused")


@pytest.mark.parametrize("way", ["frames", "shared"])
@pytest.mark.parametrize("side", [64, 512, 1024])
def test_the_solver_may_reuse_its_array_at_once(serve, side, way):
    """16 kB, 1 MiB and 4 MiB: below and above what ZeroMQ sends without a copy of its own."""
    steps = 12
    spec = wire.StudyField("u", "float32", (side, side))
    server = serve(spec, steps=steps, count=1, credit=6, reads=False, **WAYS[way])
    array = np.empty((side, side), "f4")
    with Client() as client:
        client.field("u", shape=(side, side))
        for simulation in client:
            for step in range(steps):
                if step == 6:  # no credit is left: all that was sent is still under way
                    assert not server.parts
                    server.reads.set()
                array.fill(step)
                simulation.send(u=array)
                array.fill(np.nan)
        server.wait(lambda s: len(s.parts) == steps and s.finalized)
    for part, values in server.parts:
        assert (values["u"] == part.step).all()


@pytest.mark.parametrize(
    ("given", "dtype"), [("f8", "float32"), ("f4", "float64"), ("i8", "float32"), ("u2", "float64")]
)
def test_values_are_sent_in_the_studys_type(serve, given, dtype):
    server = serve(wire.StudyField("u", dtype, (4, 3)), count=1)
    values = np.arange(12).reshape(4, 3).astype(given)
    with Client() as client:
        client.field("u", shape=(4, 3), dtype="float64")
        for simulation in client:
            for order in "CFC":
                simulation.send(u=np.asarray(values, order=order))
        server.wait(lambda s: s.finalized)
    for _, received in server.parts:
        assert received["u"].dtype == dtype
        assert np.array_equal(received["u"], values)


def wrong(**changes):
    return {"u": np.zeros((4, 3)), "p": np.zeros(5)} | changes


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"u": np.zeros((4, 3))}, "the field 'p' is missing"),
        (wrong(q=1.0), "unknown field 'q'; declared: u, p"),
        (wrong(uu=1.0), "unknown field 'uu' (did you mean 'u'?)"),
        (wrong(u=np.zeros((3, 4))), "'u' has shape (3, 4); this rank declared the extent (4, 3)"),
        (wrong(u=0.0), "'u' has shape ()"),
        (wrong(u=np.zeros((4, 3), complex)), "'u' is of type complex128; real numbers"),
        (wrong(u=np.zeros((4, 3), bool)), "'u' is of type bool; real numbers"),
        (wrong(p=[0, np.nan, 1, np.inf, 0]), "'p' has 2 values that are NaN, infinite or too"),
        (wrong(p=[0, 0, 1, np.inf, np.nan]), "too large for float64, the first at (3,)"),
        (wrong(u=np.full((4, 3), np.nan, "f4")), "'u' has 12 values that are NaN"),
        (wrong(u=np.full((4, 3), np.nan)), "'u' has 12 values that are NaN"),
        (wrong(u=np.full((4, 3), 1e39)), "'u' has 12 values that are NaN, infinite or too large"),
    ],
)
def test_invalid_fields_raise_one_sentence_and_are_reported(serve, fields, reason):
    server = serve(U, P)
    with pytest.raises(SimulationError) as caught, Client() as client:
        client.field("u", shape=(4, 3))
        client.field("p", shape=(5,))
        for simulation in client:
            simulation.send(**wrong())
            simulation.send(**fields)
    sentence = str(caught.value)
    assert sentence.startswith("simulation 0, time step 1: ")
    assert reason in sentence
    server.wait(lambda s: s.failed)
    (failed,) = server.failed
    assert (failed.simulation, failed.attempt, failed.step) == (0, 0, 1)
    assert str(Failure.received(failed.code, failed.values)) == sentence
    assert not server.finalized


def test_large_values_are_fine_while_they_fit(serve):
    server = serve(U, count=1, steps=1)
    most = np.finfo("f4").max
    with Client() as client:
        client.field("u", shape=(4, 3))
        for simulation in client:
            simulation.send(u=np.full((4, 3), float(most)))  # their sum does not fit
        server.wait(lambda s: s.finalized)
    assert (server.parts[0][1]["u"] == most).all()


def test_too_many_time_steps(serve):
    server = serve(U)
    with pytest.raises(SimulationError) as caught, Client() as client:
        client.field("u", shape=(4, 3))
        for simulation in client:
            for _ in range(4):
                simulation.send(u=np.zeros((4, 3)))
    assert str(caught.value) == (
        "simulation 0, time step 3: the study has 3 time steps; this one is too many"
    )
    server.wait(lambda s: s.failed)


def test_too_few_time_steps(serve):
    server = serve(U)
    with pytest.raises(SimulationError) as caught, Client() as client:
        client.field("u", shape=(4, 3))
        for simulation in client:
            simulation.send(u=np.zeros((4, 3)))
    assert str(caught.value) == "simulation 0 ended after 1 of 3 time steps"
    server.wait(lambda s: s.failed)
    assert server.failed[0].step == 1


def test_an_error_of_the_solver_is_reported(serve):
    server = serve(U)
    with pytest.raises(ZeroDivisionError), Client() as client:
        client.field("u", shape=(4, 3))
        for _ in client:
            raise ZeroDivisionError("time step of 0 \udcff")
    server.wait(lambda s: s.failed)
    (failed,) = server.failed
    sentence = str(Failure.received(failed.code, failed.values))
    assert sentence == "ZeroDivisionError: time step of 0 ?"


@pytest.mark.parametrize(
    ("declare", "reason"),
    [
        (("v", (4, 3)), "field 'v' is not in the study; it declares u"),
        (("u", (4, 4)), "field 'u' has the global shape (4, 4); the study says (4, 3)"),
        (("u", (4, 3), (2, 0), (3, 3)), "start (2, 0), extent (3, 3) is not inside the shape"),
        (("u", (4, 3), (0,)), "start (0,) and shape (4, 3) have different lengths"),
        (("u", (4, 3), None, None, "float16"), "the type float16 is not float32 or float64"),
        ((), "the fields u of the study are not declared; declare every field before the loop"),
    ],
)
def test_a_wrong_declaration_is_one_sentence(serve, declare, reason):
    server = serve(U)
    with pytest.raises(ClientError) as caught, Client() as client:
        if declare:
            client.field(*declare)
        next(iter(client))
    assert reason in str(caught.value)
    server.wait(lambda s: s.failed)
    (failed,) = server.failed
    assert failed.simulation == -1
    assert str(Failure.received(failed.code, failed.values)) == str(caught.value)


def test_fields_are_declared_once(serve):
    server = serve(U, P, count=1)
    with pytest.raises(ClientError, match="'u' is declared again"), Client() as client:
        client.field("u", shape=(4, 3))
        client.field("p", shape=(5,))
        for simulation in client:
            simulation.send(**wrong())
            client.field("u", shape=(4, 3))  # the same again changes nothing
            simulation.send(**wrong())
            client.field("u", shape=(4, 3), extent=(2, 3))
    server.wait(lambda s: len(s.parts) == 2)


def test_one_simulation_per_process(serve, monkeypatch):
    server = serve(U, count=9)
    monkeypatch.setenv("MELISSA_GEN_SIMULATION", "7")
    with Client() as client:
        client.field("u", shape=(4, 3))
        for simulation in client:
            assert simulation.number == 7
            for _ in range(3):
                simulation.send(u=np.zeros((4, 3)))
        server.wait(lambda s: s.finalized)
    assert [f.simulation for f in server.finalized] == [7]


def test_two_clients_in_one_process(serve):
    servers = [serve(U, count=1, steps=50), serve(U, count=1, steps=50)]

    def solve(client, value):
        client.field("u", shape=(4, 3))
        for simulation in client:
            for _ in range(50):
                simulation.send(u=np.full((4, 3), value))

    with pytest.MonkeyPatch.context() as patch:
        clients = []
        for server in servers:
            patch.setenv("MELISSA_GEN_SERVER", str(server.file))
            clients.append(Client())
    threads = [
        threading.Thread(target=solve, args=(client, value)) for value, client in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    for value, server in enumerate(servers):
        server.wait(lambda s: len(s.parts) == 50 and s.finalized)
        assert all((values["u"] == value).all() for _, values in server.parts)
    for client in clients:
        client.close()
        client.close()  # closing twice is harmless


def test_a_client_without_credit_waits_and_reports_it(serve):
    server = serve(U, steps=3, count=1, credit=1, reads=False)
    with Client() as client:
        client.field("u", shape=(4, 3))

        def open_when_it_waits():
            wait_for(
                lambda: any(b.state == wire.WAITING_FOR_CREDIT for b in server.alive),
                "its wait for credit",
            )
            server.reads.set()

        opener = threading.Thread(target=open_when_it_waits, daemon=True)
        for simulation in client:
            simulation.send(u=np.zeros((4, 3)))
            opener.start()
            simulation.send(u=np.ones((4, 3)))
            opener.join()
            wait_for(lambda: server.alive[-1].credit_seconds > 0, "the seconds that it waited")
            wait_for(lambda: server.alive[-1].spent[1] > 0.05, "seconds of solving")
            beat = server.alive[-1]
            elapsed, solving, copying, sending = beat.spent
            assert min(solving, copying, sending, beat.next_seconds) > 0
            parts = math.fsum((*beat.spent[1:], beat.credit_seconds, beat.next_seconds))
            assert parts == pytest.approx(elapsed, rel=0.2)
            simulation.send(u=np.ones((4, 3)))
        server.wait(lambda s: s.finalized)


def test_a_server_that_is_silent_is_lost(serve):
    server = serve(U, heartbeat_timeout=0.2, credit=1, reads=False)
    with pytest.raises(ServerLost, match="has been silent for"), Client() as client:
        client.field("u", shape=(4, 3))
        for simulation in client:
            server.beats = False
            for _ in range(3):
                simulation.send(u=np.zeros((4, 3)))
    assert not server.failed  # it is not the simulation's fault


def test_a_server_that_does_not_answer_a_request_is_lost(serve):
    server = serve(U, heartbeat_timeout=0.2)
    server.beats, server.stop_reason = False, "it does not answer"
    with pytest.raises(ServerLost, match="has been silent for"), Client() as client:
        client.field("u", shape=(4, 3))
        next(iter(client))


def test_a_stop_ends_the_loop_or_the_simulation(serve):
    server = serve(U, credit=1, reads=False)
    with pytest.raises(ServerLost, match="enough"), Client() as client:
        client.field("u", shape=(4, 3))
        for simulation in client:
            server.stop_reason = "enough"
            for _ in range(3):
                simulation.send(u=np.zeros((4, 3)))
    with Client() as client:
        client.field("u", shape=(4, 3))
        assert list(client) == []


def test_a_stale_contact_is_refused_by_name(serve):
    server = serve(U)
    stale = type(server.contact)(**{**_values(server.contact), "epoch": 4})
    stale.write(server.file)
    with pytest.raises(ClientError, match="a stale peer of epoch 4; this is epoch 5"):
        Client()


def _values(contact):
    return {name: getattr(contact, name) for name in contact.__dataclass_fields__}


def test_no_contact_file_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("MELISSA_GEN_SERVER", str(tmp_path / "contact.json"))
    with pytest.raises(ClientError, match=r"contact\.json: can't read the server's contact file"):
        Client()


@pytest.mark.parametrize("way", WAYS)
def test_a_fast_solver_sends_chunks(serve, way):
    """A buffer of four time steps holds those of two simulations; the last time step is not kept back."""
    server = serve(U, P, steps=6, chunk=4, **WAYS[way])
    with Client() as client:
        client.field("u", shape=(4, 3))
        client.field("p", shape=(5,))
        for simulation in client:
            for step in range(6):
                simulation.send(u=np.full((4, 3), step), p=np.arange(5) + step)
            server.wait(lambda s, n=simulation.number: len(s.parts) == 6 * (n + 1))
    assert server.cuts == [(0, 0, 4), (0, 4, 2), (1, 0, 2), (1, 2, 4)]
    for part, values in server.parts:
        assert (values["u"] == part.step).all()
        assert np.array_equal(values["p"], np.arange(5.0) + part.step)
    assert [f.steps for f in server.finalized] == [6, 6]


def test_a_slow_solver_sends_each_step_at_once(serve):
    server = serve(U, steps=6, count=1, chunk=4, latency=0.0)
    with Client() as client:
        client.field("u", shape=(4, 3))
        for simulation in client:
            for step in range(6):
                simulation.send(u=np.zeros((4, 3)))
                server.wait(lambda s, n=step: len(s.parts) == n + 1)
    assert server.cuts == [(0, step, 1) for step in range(6)]


def test_a_failure_comes_after_the_steps_before_it(serve):
    server = serve(U, steps=6, chunk=4)
    with pytest.raises(SimulationError), Client() as client:
        client.field("u", shape=(4, 3))
        for simulation in client:
            simulation.send(u=np.zeros((4, 3)))
            simulation.send(u=np.full((4, 3), np.nan))
    server.wait(lambda s: s.failed and s.parts)
    assert server.cuts == [(0, 0, 1)]


def test_the_memory_in_flight_does_not_depend_on_the_cut(serve):
    """Parts of one time step fill a buffer, too: a client may be as far ahead as with full ones."""
    server = serve(U, steps=8, count=1, credit=2, chunk=4, latency=0.0, reads=False)
    with Client() as client:
        client.field("u", shape=(4, 3))
        for simulation in client:
            for step in range(8):
                simulation.send(u=np.full((4, 3), step))
            assert not server.parts
            server.reads.set()
        server.wait(lambda s: len(s.parts) == 8 and s.finalized)

"""Inputs of a simulation, sent once by a Python client, to a server and to a file."""

import time

import h5py
import numpy as np
import pytest

from melissa_gen.client import Client
from melissa_gen.dataset import Dataset
from melissa_gen.errors import ClientError, ServerLost, SimulationError
from melissa_gen.protocol import wire

U = wire.StudyField("u", "float32", (4, 3))
INPUTS = (wire.StudyField("k", "float64", (2, 3)), wire.StudyField("mask", "float32", (5,)))


def declared(client):
    client.field("mask", shape=(5,))
    client.field("u", shape=(4, 3))
    client.field("k", shape=(2, 3))
    return client


def test_inputs_arrive_before_the_samples_in_the_type_of_the_study(serve):
    server = serve(U, inputs=INPUTS)
    with Client() as client:
        for simulation in declared(client):
            k = np.full((3, 2), 1 + simulation.number, "f4").T
            simulation.send_inputs(k=k)
            simulation.send_inputs(mask=[1, 0, 1, 0, 1])
            k[:] = -1
            for _ in range(3):
                simulation.send(u=np.zeros((4, 3)))
    server.wait(lambda s: len(s.finalized) == 2)
    for simulation in (0, 1):
        k, parts = server.inputs[simulation, "k"]
        assert (k == 1 + simulation).all()
        assert parts == 3 * simulation
        assert server.inputs[simulation, "mask"][0].tolist() == [1, 0, 1, 0, 1]


def good(simulation):
    simulation.send_inputs(k=np.ones((2, 3)), mask=np.ones(5))


def late(simulation):
    good(simulation)
    simulation.send(u=np.zeros((4, 3)))
    simulation.send_inputs(k=np.ones((2, 3)))


def missing(simulation):
    simulation.send_inputs(k=np.ones((2, 3)))
    simulation.send(u=np.zeros((4, 3)))


MISTAKES = {
    "missing": (missing, "step 0: the input 'mask' of the simulation is missing; send it before"),
    "late": (late, "step 1: the input 'k' was sent after a time step; send it before the first"),
    "twice": (lambda s: (good(s), good(s)), "the input 'k' was sent already; send it once"),
    "unknown": (
        lambda s: s.send_inputs(kk=np.ones((2, 3))),
        "step 0: unknown field 'kk' (did you mean 'k'?); declared: k, mask",
    ),
    "a field": (
        lambda s: s.send_inputs(u=np.ones((4, 3))),
        "step 0: unknown field 'u'; declared: k, mask",
    ),
    "as a field": (
        lambda s: (good(s), s.send(u=np.ones((4, 3)), k=np.ones((2, 3)))),
        "step 0: unknown field 'k'; declared: u",
    ),
    "shape": (
        lambda s: s.send_inputs(k=np.ones((3, 2))),
        "field 'k' has shape (3, 2); this rank declared the extent (2, 3)",
    ),
    "NaN": (
        lambda s: s.send_inputs(k=np.full((2, 3), np.nan)),
        "field 'k' has 6 values that are NaN",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_the_simulation_up_with_a_sentence(serve, mistake):
    act, sentence = MISTAKES[mistake]
    server = serve(U, inputs=INPUTS)
    with pytest.raises(SimulationError) as caught, Client() as client:
        for simulation in declared(client):
            act(simulation)
    assert sentence in str(caught.value)
    server.wait(lambda s: s.failed)
    assert server.failed[0].simulation == 0


def test_a_study_without_inputs_says_so(serve):
    serve(U)
    with pytest.raises(SimulationError, match="the study has no inputs"), Client() as client:
        client.field("u", shape=(4, 3))
        for simulation in client:
            simulation.send_inputs(u=np.ones((4, 3)))


def test_the_end_of_the_server_ends_a_simulation_that_sends_its_inputs(serve):
    server = serve(U, inputs=INPUTS)
    with pytest.raises(ServerLost, match="enough"), Client() as client:
        for simulation in declared(client):
            server.stop_reason = "enough"
            until = time.monotonic() + 10.0
            while time.monotonic() < until:
                simulation.send_inputs()


def test_an_input_that_is_not_declared_is_named_before_the_first_simulation(serve):
    serve(U, inputs=INPUTS)
    with (
        pytest.raises(ClientError, match="the fields k, mask of the study are not declared"),
        Client() as client,
    ):
        client.field("u", shape=(4, 3))
        next(iter(client))


def test_a_client_without_a_server_writes_its_inputs(tmp_path):
    output = tmp_path / "alone.h5"
    with Client(parameters={"a": 1.0}, output=output) as client:
        for simulation in declared(client):
            simulation.send_inputs(k=np.full((2, 3), 2.5))
            simulation.send_inputs(mask=np.arange(5))
            simulation.send(u=np.zeros((4, 3)))
    with Dataset(output) as data:
        assert list(data.fields) == ["u"]
        assert (data.read_inputs(0)["k"] == 2.5).all()
        assert data.read_inputs(0)["mask"].tolist() == [0, 1, 2, 3, 4]
    with h5py.File(output) as file:
        assert file["inputs/k"].shape == (1, 2, 3)

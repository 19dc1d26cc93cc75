"""The collector against real clients in this process."""

import threading
import time

import numpy as np
import pytest

from melissa_gen.client import Client
from melissa_gen.dataset import Dataset, DatasetWriter
from melissa_gen.errors import ClientError, SimulationError
from melissa_gen.server.coordination.collector import Collector
from melissa_gen.study import Study

POINTS = [[0.5], [1.5], [2.5]]
STEPS = 7


@pytest.fixture
def study():
    return Study.model_validate(
        {
            "name": "collected",
            "parameters": {"a": {"distribution": "uniform", "low": 0.0, "high": 3.0}},
            "simulation": {
                "command": ["solver"],
                "count": 3,
                "time_steps": STEPS,
                "timeout": 1.0,
                "fields": {"u": {"shape": [4, 3]}, "p": {"shape": [2], "dtype": "float64"}},
            },
            "reservoir": {"capacity": 20, "watermark": 4},
            "training": {"batch_size": 2},
            "server": {"heartbeat": 0.1, "credit": 2},
        }
    )


class Running:
    """A collector that is turned by a thread until it is closed."""

    def __init__(self, study, folder):
        fields = {name: (f.shape, f.dtype) for name, f in study.simulation.fields.items()}
        self.path = folder / "set.h5"
        self.writer = DatasetWriter(self.path, fields, STEPS, ["a"], len(POINTS), {})
        self.collector = Collector(study, POINTS, self.writer, folder / "contact.json")
        self.closing = threading.Event()
        self.thread = threading.Thread(target=self._turn)
        self.thread.start()

    def _turn(self):
        while not self.closing.is_set():
            self.collector.turn(20)

    def wait(self, condition):
        until = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < until
            time.sleep(0.01)

    def close(self):
        self.closing.set()
        self.thread.join()
        self.collector.close()
        self.writer.abandon()


@pytest.fixture
def running(study, tmp_path, monkeypatch):
    started = Running(study, tmp_path)
    monkeypatch.setenv("MELISSA_GEN_SERVER", str(tmp_path / "contact.json"))
    monkeypatch.setenv("MELISSA_GEN_JOB", "solver-0")
    yield started
    started.close()


def declare(client):
    client.field("u", shape=(4, 3), dtype="float64")
    client.field("p", shape=(2,))


def solve(simulation, steps=STEPS):
    u = np.empty((4, 3))
    for step in range(steps):
        u[:] = simulation.parameters["a"] + step
        simulation.send(u=u, p=[step, -step])
        u[:] = np.nan


def test_every_sample_is_stored_as_it_was_sent(running):
    with Client() as client:
        declare(client)
        assert [simulation.number for simulation in client if not solve(simulation)] == [0, 1, 2]
    running.wait(lambda: running.collector.completed == 3)
    assert running.collector.samples == 3 * STEPS
    assert running.collector.failure is None
    running.writer.close()
    with Dataset(running.path) as data:
        assert data.parameters.tolist() == POINTS
        for row, (a,) in enumerate(POINTS):
            fields = data.read(row)
            expected = a + np.arange(STEPS)[:, None, None] + np.zeros((4, 3))
            assert np.array_equal(fields["u"], expected.astype("f4"))
            assert fields["p"][3].tolist() == [3.0, -3.0]


def test_one_simulation_per_process(running, monkeypatch):
    monkeypatch.setenv("MELISSA_GEN_SIMULATION", "1")
    with Client() as client:
        declare(client)
        assert [simulation.number for simulation in client if not solve(simulation)] == [1]
    running.wait(lambda: running.collector.completed == 1)
    assert running.collector.waiting == 2


def test_a_simulation_that_is_given_up_is_a_failure_and_the_client_goes_on(running):
    done = []
    with Client() as client:
        declare(client)
        for simulation in client:
            if simulation.number == 1:
                solve(simulation, 2)
                simulation.fail("the mesh is tangled")
                continue
            solve(simulation)
            done.append(simulation.number)
    assert done == [0, 2]
    running.wait(lambda: running.collector.completed == 2)
    assert running.collector.failure == ("solver-0", "the mesh is tangled")


def test_what_can_not_be_stored_is_a_failure(running):
    with pytest.raises(SimulationError), Client() as client:
        declare(client)
        for simulation in client:
            solve(simulation, STEPS - 1)
    running.wait(lambda: running.collector.failure)
    job, reason = running.collector.failure
    assert job == "solver-0"
    assert f"simulation 0 ended after {STEPS - 1} of {STEPS} time steps" in reason


def test_blocks_that_leave_holes_are_a_failure(running):
    with Client() as client:
        client.field("u", shape=(4, 3), extent=(2, 3))
        client.field("p", shape=(2,))
        for simulation in client:
            for _ in range(STEPS):
                simulation.send(u=np.zeros((2, 3)), p=[0, 0])
            break
    running.wait(lambda: running.collector.failure)
    assert "the blocks of its ranks overlap or leave holes" in running.collector.failure[1]


def test_a_client_of_another_study_is_told(running):
    with pytest.raises(ClientError, match=r"the study says \(4, 3\)"), Client() as client:
        client.field("u", shape=(4, 4))
    assert not running.collector.has_asked("solver-0")


def test_a_client_that_gets_nowhere_is_stuck(running):
    with Client() as client:
        declare(client)
        next(iter(client))
        running.wait(lambda: running.collector.stuck(time.monotonic()))
        assert running.collector.works_on("solver-0") == 0
    job, what = running.collector.stuck(time.monotonic())
    assert job == "solver-0"
    assert "made no progress for" in what

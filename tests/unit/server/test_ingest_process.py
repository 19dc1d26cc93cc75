"""The ingest process receives for its rank, ends with it, and its death has a sentence."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import psutil
import pytest

from melissa_gen.errors import RunError
from melissa_gen.protocol import json_messages, wire
from melissa_gen.reservoir import RowReader, SlotStore
from melissa_gen.run_dir.checkpoint_folder import ingest_files, read_state
from melissa_gen.run_dir.folder import record_run
from melissa_gen.server.child_process import start_ingest_process
from melissa_gen.server.collectives import SingleRank
from melissa_gen.server.coordination.events import TRAINING, VALIDATING
from melissa_gen.server.ingest.draw_message import unpacked_draw
from melissa_gen.server.ingest.ingest_process import IngestProcess
from melissa_gen.server.ingest.receiver import STOPPED
from melissa_gen.server.rank_state import SavedPart
from melissa_gen.server.setup import RankSetup
from melissa_gen.study import load_study
from tests.unit.small_study import write_small_study

PATIENCE_SECONDS = 30
STEPS, SHAPE = 5, (3,)


class ProcessRank:
    """A rank with its ingest process, and a stand-in for the control process."""

    def __init__(self, folder, bound, peer, *settings):
        study = load_study(write_small_study(folder / "study"), settings)
        self.run_dir = folder / "run"
        (self.run_dir / "logs").mkdir(parents=True)
        record_run(study, self.run_dir)
        self.warnings = []
        started = start_ingest_process(self.run_dir, 0)
        self.child = psutil.Process(started.process.pid)
        self.process = IngestProcess(started, RankSetup.read(self.run_dir, 0, 1), self.take)
        contact, sockets = bound
        self.control = sockets["control"]
        endpoint = self.process.bind(contact)["endpoint"]
        self.contact = replace(contact, data=(endpoint,))
        self.peer = lambda: peer("data", self.contact)
        self.first_pass = []

    def kill(self):
        with contextlib.suppress(psutil.NoSuchProcess):
            self.child.kill()
            self.child.wait(PATIENCE_SECONDS)

    def take(self):
        taken, self.warnings = self.warnings, []
        return taken

    def open(self):
        self.process.open(self.contact, None, lambda value: value)
        assert self.report("rank_hello")["rank"] == 0
        self.reservoir, self.state = self.process.reservoir, self.process.shared
        self.out = {"u": np.empty((STEPS, *SHAPE), "f4")}

    def report(self, kind="rank_report"):
        message = {"type": "ping"}
        while message["type"] == "ping":
            assert self.control.poll(1000 * PATIENCE_SECONDS), "no report"
            self.identity, *frames = self.control.recv_multipart()
            message = json_messages.unpack(self.contact.token, frames)
        assert message["type"] == kind
        self.first_pass += message.get("first_pass", [])
        return message

    def wait(self, condition):
        while not condition(report := self.report()):
            pass
        return report

    def tell(self, kind, **values):
        frames = json_messages.pack(self.contact.token, {"type": kind, **values})
        self.control.send_multipart([self.identity, *frames])

    def assign(self, simulation=0):
        values = {"parameters": [0.5, 1.5], "weight": 2.0, "log_density": None}
        self.tell("assigned", simulation=simulation, **values)

    def send(self, client, number, simulation=0, at=None):
        block, step = wire.Block(0, (0,), SHAPE), number if at is None else at
        client.send(wire.Part(simulation, 0, step, 1, 1, 0, 0, (block,)), values(number).tobytes())

    def ready(self, count):
        """Waits until the reservoir holds some samples."""
        while self.reservoir.stock(2).items < count:
            self.report()


def values(step):
    return np.arange(3, dtype="f4") + 10 * step


@pytest.fixture
def make(tmp_path, bound, peer):
    """Makes a rank whose study has further settings."""
    made = []

    def make(*settings):
        made.append(ProcessRank(tmp_path, bound, peer, *settings))
        made[0].open()
        return made[0]

    yield make
    for rank in made:
        rank.kill()


@pytest.fixture
def rank(make):
    return make()


@pytest.fixture
def recording(make):
    return make("record.file=record.h5")


@pytest.fixture
def small(make):
    """A rank with a reservoir of four samples."""
    return make("reservoir.capacity=4", "reservoir.watermark=2")


def test_samples_reach_the_trainer_through_shared_memory(rank):
    assert not rank.reservoir.wait_ready(2, 0.01)
    rank.assign()
    client = rank.peer()
    for step in range(4):
        rank.send(client, step)
    rank.ready(4)
    assert rank.reservoir.wait_ready(2)
    slots = rank.reservoir.take_arrivals()
    rows = rank.reservoir.store
    assert rows.steps[slots].tolist() == [0, 1, 2, 3]
    assert rows.arrays["u"][slots].tolist() == [values(step).tolist() for step in range(4)]
    assert rank.reservoir.take_arrivals() == []
    batch = rank.reservoir.draw(4, rank.out)
    assert batch.count == 4 and batch.first_time.any()
    for row, step in enumerate(batch.steps.tolist()):
        assert batch.fields["u"][row].tolist() == values(step).tolist()
        assert batch.inputs[row].tolist() == [0.5, 1.5, step]
    assert batch.simulation_weights.tolist() == [2.0] * 4
    counters = rank.process.counters()
    assert counters["stored"] == 4 and counters["draws"] == 1
    spent = rank.report()["ingest"]
    assert spent["drawing"] > 0 and spent["copying"] > 0 and spent["waiting"] > 0


def test_input_fields_come_with_arrivals_and_with_a_draw(make):
    rank = make("simulation.inputs={k: {shape: [2]}}")
    client = rank.peer()
    given = {}
    for simulation in (0, 1):
        rank.assign(simulation)
        given[simulation] = np.array([simulation, 7.0], "f4")
        block = wire.Block(0, (0,), (2,))
        client.send(wire.Input(simulation, 0, 1, block, given[simulation].tobytes()))
        for step in range(2):
            rank.send(client, step, simulation)
    rank.ready(4)
    rows = rank.reservoir.store
    first = [slot for slot in rank.reservoir.take_arrivals() if rows.steps[slot] == 0]
    assert len(first) == 2
    for slot in first:
        expected = given[int(rows.simulations[slot])]
        assert np.array_equal(rows.input_fields[slot]["k"], expected)
    batch = rank.reservoir.draw(4, rank.out | {"k": np.empty((4, 2), "f4")})
    for row, simulation in enumerate(batch.simulations.tolist()):
        assert np.array_equal(batch.fields["k"][row], given[simulation])


def test_a_draw_does_not_send_input_fields(make):
    size = 10_000
    rank = make(f"simulation.inputs={{k: {{shape: [{size}]}}}}")
    client = rank.peer()
    rank.assign()
    block = wire.Block(0, (0,), (size,))
    client.send(wire.Input(0, 0, 1, block, np.arange(size, dtype="f4").tobytes()))
    for step in range(4):
        rank.send(client, step)
    rank.ready(4)
    given = {"n": 4, "below_watermark": True, "inputs": True}
    head, data = rank.process.ask("begin_draw", **given)
    rank.process.tell("end_draw")
    # 40 kB for one sample alone.
    assert len(json.dumps(head)) + len(data) < 4 * 50
    batch = rank.reservoir.draw(4, rank.out | {"k": np.empty((4, size), "f4")})
    assert (batch.fields["k"] == np.arange(size)).all()


def test_the_next_batch_does_not_wait_for_the_process(make):
    """A process that does not run can't answer."""
    rank = make("simulation.inputs={k: {shape: [2]}}")
    client = rank.peer()
    for simulation in range(4):
        rank.assign(simulation)
        block = wire.Block(0, (0,), (2,))
        given = np.full(2, simulation, "f4")
        client.send(wire.Input(simulation, 0, 1, block, given.tobytes()))
        for step in range(4):
            rank.send(client, 10 * simulation + step, simulation, at=step)
    rank.ready(16)
    out = rank.out | {"k": np.empty((2, 2), "f4")}
    rank.reservoir.draw(2, out)
    before = rank.process.counters()
    assert (before["draws"], before["samples_drawn"]) == (1, 2)
    rank.child.suspend()
    batch = rank.reservoir.draw(2, out)
    rank.child.resume()
    for row, (simulation, step) in enumerate(zip(batch.simulations, batch.steps, strict=True)):
        assert np.array_equal(batch.fields["u"][row], values(10 * simulation + step))
        assert (batch.fields["k"][row] == simulation).all()
    after = rank.process.counters()
    assert (after["draws"], after["samples_drawn"]) == (2, 4)
    assert after["trained"] - before["trained"] == len(
        {pair for pair, new in zip(names(batch), batch.first_time.tolist(), strict=True) if new}
    )
    assert after["stored"] == after["trained"] + after["unseen"] == 16
    # The end removes what is drawn: the trainer and the process agree on what is left.
    rank.tell("reception_over")
    while not rank.reservoir.stock(2).closed:
        rank.report()
    while not (stock := rank.reservoir.stock(2)).drained:
        batch = rank.reservoir.draw(min(stock.items, 2), out, below_watermark=True)
        assert batch.count == min(stock.items, 2)
    assert rank.process.counters()["trained"] == 16


def names(batch):
    return list(zip(batch.simulations.tolist(), batch.steps.tolist(), strict=True))


def test_what_the_trainer_does_is_in_the_reports(rank):
    rank.state.begin_turn()
    rank.state.now(TRAINING)
    rank.state.publish({"batches": 3, "loss": 0.5})
    rank.state.add_first_pass([(0, 0.25, 0.125)])
    rank.warnings = ["the learning rate is large"]
    rank.process.counters()
    report = rank.wait(lambda one: one["warnings"])
    assert report["warnings"] == ["the learning rate is large"]
    assert (report["turns"], report["activity"]) == (1, TRAINING)
    assert report["training"] == {"batches": 3, "loss": 0.5}
    assert rank.first_pass == [[0, 0.25, 0.125]]
    rank.state.begin_piece(VALIDATING)
    rank.state.report_saved(SavedPart(4, True, ""))
    report = rank.wait(lambda one: one["saved"][0] == 4)
    assert (report["pieces"], report["activity"]) == (1, VALIDATING)


def test_a_checkpoint_holds_the_samples_in_memory(rank, tmp_path):
    rank.assign()
    client = rank.peer()
    for step in range(4):
        rank.send(client, step)
    rank.ready(4)
    saver = rank.process.state(tmp_path / "rows.safetensors")
    assert saver.run()
    rank.process.save(tmp_path, publish=True)
    state = read_state(tmp_path, ingest_files(0))
    assert state["reservoir"]["counters"]["unseen"] == 4
    assert sorted(state["assembler"]["unseen"].tolist()) == [[0, step] for step in range(4)]
    rows = SlotStore({"u": (SHAPE, "f4")}, 8, 3)
    with RowReader(tmp_path / "rows.safetensors") as reader:
        reader.read(np.arange(4), rows, np.arange(4))
        assert sorted(reader.columns["step"].tolist()) == [0, 1, 2, 3]
    assert sorted(rows.arrays["u"][:4, 0].tolist()) == [0.0, 10.0, 20.0, 30.0]
    saver = rank.process.state(tmp_path / "other.safetensors")
    assert not saver.run(lambda: True)


def test_a_checkpoint_is_written_when_the_recording_is_on_disk(recording, tmp_path):
    rank = recording
    rank.assign()
    client = rank.peer()
    for step in range(4):
        rank.send(client, step)
    rank.ready(4)
    rank.process.state(None)
    rank.process.save(tmp_path, publish=True)
    recorded = read_state(tmp_path, ingest_files(0))["reservoir"]["sides"]["states"]["record"]
    assert recorded["failure"] is None
    assert recorded["file"] and "rows" in recorded


def test_rows_of_a_batch_and_of_arrivals_stay_until_the_trainer_has_read_them(small):
    rank = small
    for simulation in range(4):
        rank.assign(simulation)
    client = rank.peer()
    for step in range(4):
        rank.send(client, step)
    rank.ready(4)
    rank.reservoir.take_arrivals()
    head, data = rank.process.ask("begin_draw", n=4, below_watermark=True, inputs=False)
    rows = rank.reservoir.store
    slots = unpacked_draw(head, data).draw.selection.slots
    drawn = rows.arrays["u"][slots].copy()
    for simulation in (1, 2, 3):
        for step in range(5):
            rank.send(client, step + 100 * simulation, simulation, at=step)
    # The first ones take the place of samples that were drawn.
    rank.wait(lambda report: report["reservoir"]["stored"] > 4)
    rank.report()
    assert np.array_equal(rows.arrays["u"][slots], drawn)
    rank.process.tell("end_draw")
    later = rank.reservoir.take_arrivals()
    assert later and (rows.simulations[later] > 0).all()


def test_a_file_that_cant_be_written_is_an_error_of_the_saver(rank, tmp_path):
    saver = rank.process.state(tmp_path / "missing" / "rows.safetensors")
    with pytest.raises(OSError, match="No such file"):
        saver.run()


def test_the_trainer_learns_why_the_study_was_stopped(rank):
    rank.tell("stop", reason="stopped by the user")
    while rank.state.stop_reason is None:
        rank.report()
        rank.state.refresh()
    assert rank.state.stop_reason == "stopped by the user"
    assert rank.state.error is None


def test_the_process_ends_after_its_last_report(rank):
    rank.assign()
    rank.send(rank.peer(), 0)
    rank.ready(1)
    assert rank.process.close() is None
    report = rank.wait(lambda one: one["last"])
    assert report["reservoir"]["stored"] == 1
    assert report["reservoir"]["withdrawn"] == {STOPPED: 1}
    rank.process.finish(SingleRank(), complete=True)
    assert rank.process.summary() == {}
    assert 20 < rank.process.end() < 300
    rank.process.leave()
    rank.child.wait(PATIENCE_SECONDS)


def test_a_process_that_is_stopped_after_its_last_report_is_named(make):
    """The control process waits for no further report of this rank, and all other ranks wait for the rank."""
    rank = make("server.heartbeat_timeout=1")
    rank.process.close()
    rank.wait(lambda one: one["last"])
    rank.child.suspend()
    with pytest.raises(
        RunError, match=r"process of server rank 0 has been stopped for \d s .*heartbeat_timeout"
    ):
        rank.process.finish(SingleRank(), complete=True)


def test_a_checkpoint_of_a_process_that_is_stopped_has_an_end(make, tmp_path):
    rank = make("server.heartbeat_timeout=1")
    saver = rank.process.state(tmp_path / "rows.safetensors")
    rank.child.suspend()
    with pytest.raises(RunError, match="process of server rank 0 has been stopped"):
        saver.run()


def test_the_death_of_the_process_is_a_sentence(rank):
    rank.child.kill()
    with pytest.raises(RunError, match="the ingest process of server rank 0 has ended by signal 9"):
        rank.reservoir.draw(2, rank.out)


def test_memory_that_does_not_exist_is_an_error_at_the_start(tmp_path, bound, peer):
    rank = ProcessRank(
        tmp_path, bound, peer, "reservoir.capacity=2000000000", "simulation.fields.u.shape=[100000]"
    )
    try:
        with pytest.raises(RunError, match=r"could not allocate a reservoir .*lower"):
            rank.process.open(rank.contact, None, lambda value: value)
    finally:
        rank.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_process_ends_with_its_rank_and_not_before(tmp_path, number):
    code = (
        "import sys, time; from pathlib import Path; "
        "from melissa_gen.server.child_process import start_ingest_process; "
        "start_ingest_process(Path(sys.argv[1]), 0); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE
    ) as rank:
        rank.stdout.readline()
        (process,) = psutil.Process(rank.pid).children()
        os.kill(rank.pid, number)
        process.wait(PATIENCE_SECONDS)

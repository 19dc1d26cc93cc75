"""The control process answers rank 0, ends with it, and its death has a sentence."""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import psutil
import pytest

from melissa_gen.errors import RunError, StudyError
from melissa_gen.protocol.contact import Contact
from melissa_gen.run_dir.events import read_events
from melissa_gen.run_dir.folder import record_run
from melissa_gen.server.child_process import start_control
from melissa_gen.server.consumer import Consumer
from melissa_gen.server.coordination.control_process import ControlProcess
from melissa_gen.server.rank_state import SavedPart
from melissa_gen.server.setup import RankSetup
from melissa_gen.study import load_study
from tests.unit.small_study import write_small_study

PATIENCE_SECONDS = 30


class _Model(Consumer):
    """A consumer with a model that is a text."""

    progress, fit_to_save = 7, True
    attach = run = state = restore = summary = None

    def save_model(self, folder):
        (folder / "model").write_text("weights")
        return {"optimizer": {"momentum": 0.9}}


_Model.__abstractmethods__ = frozenset()


@pytest.fixture
def run_dir(tmp_path):
    study = load_study(write_small_study(tmp_path / "study"), ["sampler.method=uniform"])
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "logs").mkdir()
    record_run(study, folder)
    return folder


@pytest.fixture
def lost():
    return queue.SimpleQueue()


@pytest.fixture
def control(run_dir, lost):
    yield ControlProcess(run_dir, start_control(run_dir), lost.put)
    for process in children():
        process.kill()
        process.wait(PATIENCE_SECONDS)


@pytest.fixture
def contact():
    contact = replace(Contact.new(0, "node17", ipc=True, encrypt_data=False), data=("ipc:///x",))
    yield contact
    shutil.rmtree(contact.runtime_folder)


def children():
    """The control processes of this process."""
    return [
        one
        for one in psutil.Process().children()
        if "melissa_gen.server.coordination" in one.cmdline()
    ]


def test_a_run_that_is_stopped_leaves_its_contact_its_events_a_checkpoint_and_results(
    control, run_dir, contact, lost
):
    complete = control.open(RankSetup.read(run_dir, 0, 1), contact, None)
    assert complete.control and complete.heartbeat and complete.data == contact.data
    control.start_serving(0, 0)
    assert Contact.read(run_dir / "contact.json") == complete
    control.promise(1000.0, 500.0)
    control.event("training_started", device="CPU", gradients=float("nan"))
    control.begin_checkpoint("latest", _Model())
    canceled = threading.Event()
    canceled.set()
    control.publish_when_written(1, canceled)
    assert not (run_dir / "checkpoints" / "latest").exists(), "no rank has written its part"
    control.publish("latest", [SavedPart(1)])
    folder = run_dir / "checkpoints" / "latest"
    assert (folder / "model").read_text() == "weights"
    state = json.loads((folder / "state.json").read_text())
    assert state["batches"] == 7 and state["optimizer"] == {"momentum": 0.9}
    assert not control.handing_over
    control.fail("a disk is full")
    control.end_control()
    assert control.outcome(None, None, handover=False) == ("failed", "a disk is full")
    (process,) = children()
    control.finish(None, None, [1.0], {"training": {"batches": 7}}, handover=False)
    assert not process.is_running()
    summary = json.loads((run_dir / "summary.json").read_text())
    assert (summary["status"], summary["training"]) == ("failed", {"batches": 7})
    memory = summary["memory"]
    peak = memory["peak_rss_megabytes_of_control"]
    assert 20 < peak < memory["promised_megabytes_of_control"] == 500.0
    assert memory["promised_megabytes_per_rank"] == [1000.0]
    kinds = [event["event"] for event in read_events(run_dir / "events.jsonl")]
    told = [
        "run_started",
        "server_ready",
        "memory_promised",
        "training_started",
        "checkpoint",
        "run_finished",
    ]
    assert [kind for kind in kinds if kind in told] == told
    assert lost.empty()


def test_errors_of_the_coordinator_keep_their_kind(control, run_dir, contact):
    setup = RankSetup.read(run_dir, 0, 1)
    text = (run_dir / "study.yaml").read_text()
    (run_dir / "study.yaml").write_text(text.replace("count: 4", "cuont: 4"))
    with pytest.raises(StudyError, match="cuont"):
        control.open(setup, contact, None)


def test_the_death_of_the_process_ends_the_server_with_a_sentence(control, run_dir, contact, lost):
    control.open(RankSetup.read(run_dir, 0, 1), contact, None)
    (process,) = children()
    process.kill()
    sentence = "the control process of the server has ended by signal 9"
    assert lost.get(timeout=PATIENCE_SECONDS).startswith(sentence)
    control.event("not", written="any more")
    with pytest.raises(RunError, match=sentence):
        control.start_serving(0, 0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_process_ends_with_rank_0_and_not_before(run_dir, number):
    code = (
        "import sys, time; from pathlib import Path; "
        "from melissa_gen.server.child_process import start_control; "
        "start_control(Path(sys.argv[1])); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run_dir)], stdout=subprocess.PIPE
    ) as rank_0:
        rank_0.stdout.readline()
        (process,) = psutil.Process(rank_0.pid).children()
        os.kill(rank_0.pid, number)
        process.wait(PATIENCE_SECONDS)

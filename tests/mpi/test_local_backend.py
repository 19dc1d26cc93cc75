"""Real MPI jobs on this machine: their start, their end, and that they leave nothing behind."""

import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from rich.console import Console

from melissa_gen.dataset import Dataset
from melissa_gen.errors import RunError
from melissa_gen.exit_status import status_of_job
from melissa_gen.launcher.backends.local import (
    LocalBackend,
    last_lines,
    lines_with_those_of_mpirun,
)
from melissa_gen.launcher.backends.mpirun import JOB_TAG, find_mpirun
from melissa_gen.launcher.commands.check import check_study
from melissa_gen.launcher.commands.generate import generate
from melissa_gen.report.live import LiveView
from melissa_gen.study import load_study

pytestmark = pytest.mark.mpi

PATIENCE = 30.0


@pytest.fixture
def backend(tmp_path):
    one = LocalBackend(find_mpirun(), tmp_path, tmp_path)
    yield one
    one.close()
    assert one.running == []


def start(backend, text, name="job", processes=2, **environment):
    script = backend.folder / f"{name}.py"
    script.write_text(text)
    backend.start(name, (sys.executable, str(script)), processes, environment)


def wait_for(condition, what):
    until = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < until, f"waited in vain for {what}"
        time.sleep(0.01)
    return found


def wait_end(backend, count=1):
    ended = {}

    def look():
        ended.update((one.name, one.code) for one in backend.poll())
        return len(ended) >= count

    wait_for(look, "the end of a job")
    return ended


def processes_of(mark):
    """Living processes that carry a mark in their environment; a zombie has none."""
    found = []
    for process in psutil.process_iter():
        try:
            if f"{JOB_TAG}={mark}".encode() in Path(f"/proc/{process.pid}/environ").read_bytes():
                found.append(process.pid)
        except OSError:
            continue
    return found


def segments():
    return {path.name for path in Path("/dev/shm").glob("mpich_shm_*")}


def own(mark):
    """Returns the segments that the ranks of one job have open; jobs of other tests use the same folder."""

    def look():
        found = set()
        for pid in processes_of(mark):
            with contextlib.suppress(OSError):
                links = [entry.readlink() for entry in Path(f"/proc/{pid}/fd").iterdir()]
                found |= {link.name for link in links if link.name.startswith("mpich_shm_")}
        return found

    return wait_for(look, "its segments")


RANKS_UP = """
import os, pathlib, signal, sys, time
from mpi4py import MPI
comm = MPI.COMM_WORLD
if "DEAF" in os.environ:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
comm.barrier()
print("rank", comm.rank, "of", comm.size, flush=True)
pathlib.Path(f"up-{os.environ['NAME']}-{comm.rank}").write_text(os.environ["MELISSA_GEN_MPI_JOB"])
if "CRASH" in os.environ and comm.rank == 1:
    while not os.path.exists("crash"):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGSEGV)
time.sleep(600)
"""


def wait_up(backend, name="job", processes=2):
    """Waits until all ranks have passed a barrier; returns the job's mark."""
    files = [backend.folder / f"up-{name}-{rank}" for rank in range(processes)]
    wait_for(lambda: all(f.exists() and f.read_text() for f in files), "the ranks")
    return files[0].read_text()


@pytest.mark.parametrize("code", [0, 3])
def test_exit_status_and_log(backend, code):
    start(
        backend,
        "import sys\nfrom mpi4py import MPI\nprint('I am ' + str(MPI.COMM_WORLD.rank), flush=True)\n"
        f"MPI.Finalize()\nsys.exit({code})",
    )
    assert wait_end(backend) == {"job": code}
    log = backend.log("job").read_text()
    assert "I am 0" in log
    assert "I am 1" in log


def test_a_world_of_one_process_has_an_empty_standard_input(backend):
    start(
        backend,
        "import sys\nfrom mpi4py import MPI\nprint(MPI.COMM_WORLD.size, repr(sys.stdin.read()))",
        processes=1,
    )
    assert wait_end(backend) == {"job": 0}
    assert last_lines(backend.log("job")) == ["1 ''"]


def test_variables_of_another_mpi_world_are_removed(backend, monkeypatch):
    for key, value in (("PMI_RANK", "5"), ("PMI_SIZE", "9"), ("PMI_FD", "77"), ("HYDRA_X", "1")):
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("MELISSA_GEN_SERVER", "/somewhere/else")
    start(
        backend,
        "import os\nfrom mpi4py import MPI\n"
        "print(MPI.COMM_WORLD.size, 'MELISSA_GEN_SERVER' in os.environ, os.environ['OWN'])",
        processes=1,
        OWN="yes",
    )
    assert wait_end(backend) == {"job": 0}
    assert last_lines(backend.log("job")) == ["1 False yes"]


def test_terminate_ends_all_ranks_and_leaves_nothing(backend):
    start(backend, RANKS_UP, processes=3, NAME="job")
    mark = wait_up(backend, processes=3)
    mine = own(mark)
    assert len(processes_of(mark)) >= 4
    backend.terminate("job")
    assert wait_end(backend)["job"] != 0
    wait_for(lambda: not processes_of(mark), "the end of all ranks")
    assert not mine & segments()


def test_a_rank_that_ignores_sigterm_is_killed(backend):
    start(backend, RANKS_UP, NAME="job", DEAF="1")
    mark = wait_up(backend)
    mine = own(mark)
    backend.terminate("job")
    backend.poll()
    backend.kill("job")
    assert "job" in wait_end(backend)
    wait_for(lambda: not processes_of(mark), "the end of all ranks")
    assert not mine & segments()


def test_ranks_whose_mpirun_was_killed_end_too(backend):
    start(backend, RANKS_UP, NAME="job", DEAF="1")
    mark = wait_up(backend)
    mine = own(mark)
    mpirun = next(p for p in processes_of(mark) if psutil.Process(p).ppid() == os.getpid())
    os.kill(mpirun, signal.SIGKILL)
    assert wait_end(backend) == {"job": -signal.SIGKILL}
    wait_for(lambda: not processes_of(mark), "the end of all ranks")
    assert not mine & segments()


def test_a_crashed_rank_ends_its_world_and_leaves_no_segment(backend):
    start(backend, RANKS_UP, NAME="job", CRASH="1")
    mark = wait_up(backend)
    mine = own(mark)
    (backend.folder / "crash").touch()
    assert wait_end(backend)["job"] != 0
    wait_for(lambda: not processes_of(mark), "the end of all ranks")
    assert not mine & segments()


def test_other_worlds_are_left_alone(backend):
    start(backend, RANKS_UP, name="one", NAME="one")
    start(backend, RANKS_UP, name="two", NAME="two")
    one, two = wait_up(backend, "one"), wait_up(backend, "two")
    alive = processes_of(two)
    first, second = own(one), own(two)
    backend.kill("one")
    assert "one" in wait_end(backend)
    wait_for(lambda: not processes_of(one), "the end of the killed world")
    assert processes_of(two) == alive
    assert backend.running == ["two"]
    assert segments() & (first | second) == second
    backend.kill_all()
    assert "two" in wait_end(backend)


def test_the_log_quotes_the_solver_and_not_mpirun(backend):
    # MPICH may drop what a rank has written in the instant before it aborts: it waits until its line is there.
    start(
        backend,
        "import os, time\nfrom mpi4py import MPI\nif MPI.COMM_WORLD.rank == 0:\n"
        "    print('the mesh is too coarse', flush=True)\n"
        "    while 'coarse' not in open(os.environ['LOG']).read():\n        time.sleep(0.01)\n"
        "    MPI.COMM_WORLD.Abort(7)\n"
        "MPI.COMM_WORLD.barrier()",
        LOG=str(backend.log("job")),
    )
    assert wait_end(backend)["job"] == 7
    assert last_lines(backend.log("job")) == ["the mesh is too coarse"]


@pytest.mark.parametrize(("end", "status"), [("os.kill(os.getpid(), 9)", 137), ("os._exit(9)", 9)])
def test_a_rank_that_is_killed_is_told_from_one_that_exits_with_9(backend, end, status):
    start(
        backend,
        f"import os\nfrom mpi4py import MPI\nif MPI.COMM_WORLD.rank == 1:\n    {end}\n"
        "MPI.COMM_WORLD.barrier()",
    )
    code = wait_end(backend)["job"]
    assert status_of_job(code, lines_with_those_of_mpirun(backend.log("job"))) == status


def test_an_mpirun_that_is_not_there(backend):
    backend.mpirun = "/nowhere/mpirun"
    with pytest.raises(RunError, match="can't start job: /nowhere/mpirun"):
        start(backend, "")


def test_a_second_signal_to_an_unknown_world_does_nothing(backend):
    backend.terminate("nobody")
    backend.kill("nobody")
    assert backend.poll() == []


SOLVER = """
import os, sys, time
import numpy as np
from melissa_gen.client import Client
with Client() as client:
    client.field("u", shape=(3,))
    for simulation in client:
        for step in range(5):
            if "HANG" in os.environ and step == 2:
                time.sleep(600)
            if "SHORT" in os.environ and step == 3:
                break
            value = np.nan if "NAN" in os.environ else simulation.parameters["a"]
            simulation.send(u=np.full(3, value))
"""


@pytest.fixture
def offline_study(tmp_path, monkeypatch):
    """Returns the function that makes a study of `SOLVER` with some environment."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def make(**environment):
        (tmp_path / "solver.py").write_text(SOLVER)
        study = {
            "name": "offline",
            "parameters": {"a": {"distribution": "uniform", "low": 0, "high": 1}},
            "simulation": {
                "command": ["python", "solver.py"],
                "count": 4,
                "time_steps": 5,
                "fields": {"u": {"shape": [3]}},
                "environment": environment,
                "timeout": 5,
            },
            "reservoir": {"capacity": 20, "watermark": 4},
            "training": {"batch_size": 2},
            "launcher": {"clients": 2},
        }
        (tmp_path / "study.yaml").write_text(json.dumps(study))
        return load_study(tmp_path / "study.yaml")

    return make


@pytest.fixture
def view(tmp_path):
    with (tmp_path / "console").open("w+") as file:
        yield LiveView(Console(file=file, width=200))


@pytest.mark.parametrize("mode", ["persistent", "per_simulation"])
def test_a_data_set_is_made_in_both_modes(offline_study, tmp_path, view, mode):
    study = offline_study()
    study = study.model_copy(
        update={"simulation": study.simulation.model_copy(update={"mode": mode})}
    )
    output = tmp_path / "out" / "set.h5"
    with Dataset(generate(study, output, 3, 7, view, run_dir=tmp_path / "run")) as data:
        assert len(data) == 3
        assert np.allclose(data.read(2)["u"], data.parameters[2], rtol=1e-6)


def test_a_solver_that_hangs_ends_the_generation(offline_study, tmp_path, view):
    study = offline_study(HANG="1")
    section = study.simulation.model_copy(update={"retries": 0, "timeout": 3.0})
    study = study.model_copy(update={"simulation": section})
    with pytest.raises(
        RunError, match=r"made no progress in time step 2 of simulation \d for \d s"
    ):
        generate(study, tmp_path / "out" / "set.h5", 2, 7, view, run_dir=tmp_path / "run")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("SHORT", "set simulation.time_steps to 3"),
        ("NAN", "use a smaller time step"),
    ],
)
def test_check_says_what_to_change(offline_study, tmp_path, view, fault, words):
    assert not check_study(offline_study(**{fault: "1"}), view)
    view.console.file.flush()
    assert words in (tmp_path / "console").read_text()


def test_check_of_a_good_study(offline_study, tmp_path, view):
    assert check_study(offline_study(), view)
    view.console.file.flush()
    assert "field 'u': 5 time steps of [3]" in (tmp_path / "console").read_text()

"""Studies that can't run or continue: each ends with one clear sentence and the right exit status."""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import RECORDED

pytestmark = pytest.mark.mpi

SOLVER = Path(__file__).parent / "solver.py"
# With a short wait for a client that never asks for a simulation.
HASTY = ("--set", "launcher.connect_timeout=1")


def assert_one_sentence(run, code, *words):
    """Asserts the exit status, and that the last line on the terminal holds all the words."""
    assert run.code == code, run.output
    for word in words:
        assert word in run.last_line, run.output
    assert "Traceback" not in run.output


@pytest.mark.parametrize(
    ("command", "mode", "words"),
    [
        (["true"], "per_simulation", "exit status 0"),
        (["sleep", "600"], "persistent", "command: sleep 600"),
    ],
    ids=["ends", "sleeps"],
)
def test_a_program_that_never_connects(runs, command, mode, words):
    study = runs.study(
        {
            "simulation.command": command,
            "simulation.mode": mode,
            "simulation.timeout": 1,
            "simulation.retries": 0,
            **RECORDED,
        }
    )
    run = runs.run(study, *HASTY)
    assert_one_sentence(run, 1, "tiny: 3 client jobs in a row ended before", words)
    assert run.summary["status"] == "failed"


def test_a_solver_with_another_mesh(runs):
    command = ["python", "solver.py", "--mesh", "14"]
    study = runs.study({"simulation.command": command, **RECORDED}, solver=SOLVER)
    run = runs.run(study)
    assert_one_sentence(
        run, 1, "tiny:", "field 'u' has the global shape (14, 4); the study says (12, 4)"
    )
    assert run.summary["status"] == "failed"


def test_a_solver_that_connects_and_then_sleeps(runs):
    study = runs.study(
        {
            "simulation.command": ["python", "solver.py", "--mishaps", '{"0": "idle"}'],
            "simulation.timeout": 2,
            **RECORDED,
        },
        solver=SOLVER,
    )
    run = runs.run(study, *HASTY)
    assert_one_sentence(run, 1, "tiny:", "before they had asked for a simulation")


def test_every_simulation_fails(runs):
    study = runs.study(
        {
            "simulation.command": ["python", "solver.py", "--mishaps", '{"all": "nan"}'],
            "simulation.count": 3,
            **RECORDED,
        },
        solver=SOLVER,
    )
    run = runs.run(study)
    words = ("all 3 simulations failed", "field 'u' has 1 values that are NaN")
    assert_one_sentence(run, 1, "tiny:", *words)
    assert run.summary["status"] == "failed"
    assert run.summary["simulations"]["failed"] == 3
    run.assert_adds_up()


def test_a_run_directory_is_written_once(runs):
    # The last two simulations wait for the gate: the first run cannot end before the second is refused.
    command = ["python", "solver.py", "--gate", "open"]
    study = runs.study(
        {"simulation.command": command, "simulation.count": 8, **RECORDED}, solver=SOLVER
    )
    first = runs.start(study)
    first.wait_event("server_ready")
    second = runs.run(study, run_dir=first.run_dir)
    pid = first.process.pid
    assert_one_sentence(second, 1, f"is in use by process {pid} on", "choose another --run-dir")
    (study.parent / "open").touch()
    first.wait().assert_finished()
    before = {path: path.stat().st_mtime_ns for path in first.run_dir.rglob("*") if path.is_file()}
    third = runs.run(study, run_dir=first.run_dir)
    assert_one_sentence(third, 1, "already holds a run", "choose another --run-dir")
    del before[first.run_dir / ".lock"]
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 24 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"needs to be root and may mount a file system: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.root
def test_a_disk_that_is_full_before_the_start(runs, small_disk):
    (small_disk / "ballast").write_bytes(bytes(20_000_000))
    run = runs.run(runs.study(RECORDED, solver=SOLVER), run_dir=small_disk / "run")
    assert_one_sentence(run, 1, "the disk of the run directory", "is full: ", "MB free")


@pytest.mark.root
def test_a_disk_that_fills_up_during_the_run(runs, small_disk):
    study = runs.study(
        {
            "simulation.command": ["python", "solver.py", "--pause", "0.02"],
            "simulation.count": 2000,
        },
        solver=SOLVER,
    )
    run = runs.start(study, run_dir=small_disk / "run")
    run.wait_event("simulation_finished", 3)
    with (
        (small_disk / "ballast").open("wb", buffering=0) as file,
        pytest.raises(OSError, match="No space left"),
    ):
        while True:
            file.write(bytes(4096))
    run.wait()
    assert_one_sentence(run, 1, "tiny:", "No space left on device")

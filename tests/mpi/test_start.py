"""What happens between the command and the first simulation of a study."""

import json
import sys
from pathlib import Path

import pytest

from tests.conftest import wait_for

pytestmark = pytest.mark.mpi

SOLVER = Path(__file__).parent.parent / "faults" / "solver.py"
SAYS_WHETHER_TORCH = (
    "import atexit, sys; from melissa_gen.launcher.cli import main; "
    "atexit.register(lambda: print('torch loaded:', 'torch' in sys.modules)); main()"
)


def test_the_server_refuses_a_network_that_can_not_be_trained_and_nothing_is_left(runs):
    study = runs.study(solver=SOLVER)
    wrong = ("--set", "surrogate.class=torch.nn.Linear")
    run = runs.run(study, *wrong, "--set", "server.ranks=2")
    assert run.code == 2
    assert run.last_line.startswith("melissa-gen: surrogate.arguments do not match Linear(")
    assert not run.run_dir.exists()

    # In a directory that was there, the user's files stay.
    run.run_dir.mkdir()
    (run.run_dir / "notes.txt").write_text("of the user")
    assert runs.run(study, *wrong).code == 2
    assert (run.run_dir / "notes.txt").read_text() == "of the user"
    assert not (run.run_dir / "run.json").exists()

    # The directory is free for the corrected study. Its launcher saves the time to import torch.
    again = runs.run(study, command=(sys.executable, "-c", SAYS_WHETHER_TORCH))
    again.assert_finished()
    assert again.last_line == "torch loaded: False"


HANGS = ["python", "solver.py", "--mishaps", json.dumps({"all": "hang"})]
DIES = """import os
from torch import nn

class Dies(nn.Module):
    def __init__(self, **arguments):
        os._exit(3)
"""


def with_hanging_solver(runs):
    """Returns a study whose validation set would take an hour."""
    changes = {"simulation.command": HANGS, "training.validation.simulations": 2}
    return runs.study(changes, solver=SOLVER)


def test_a_network_that_is_refused_ends_the_solvers_of_the_validation_set(runs):
    run = runs.run(with_hanging_solver(runs), "--set", "surrogate.class=torch.nn.Linear")
    assert run.code == 2
    assert run.last_line.startswith("melissa-gen: surrogate.arguments do not match Linear(")
    assert not run.run_dir.exists()
    assert [path.name for path in (run.run_dir.parent / "validation").glob("[!.]*")] == [
        "CACHEDIR.TAG"
    ]
    runs.assert_nothing_left()


def test_a_server_that_dies_ends_the_solvers_of_the_validation_set(runs):
    study = with_hanging_solver(runs)
    (study.parent / "net.py").write_text(DIES)
    run = runs.run(study, "--set", "surrogate.class=net.py:Dies")
    assert run.code == 1, run.output
    assert "the server ended with exit status" in run.last_line
    assert run.summary["status"] == "failed"
    runs.assert_nothing_left()


def test_ctrl_c_while_the_validation_set_is_solved_leaves_the_directory_free(runs):
    run = runs.start(with_hanging_solver(runs))
    working = run.run_dir.parent / "validation"
    wait_for(lambda: any(working.glob("*.run/logs/client-0.log")), "a solver of the validation set")
    run.interrupt()
    assert run.wait().code == 130
    assert not (run.run_dir / "run.json").exists()
    runs.assert_nothing_left()

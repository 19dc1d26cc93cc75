"""What happens between the command and the first simulation of a study without a validation set to solve."""

import sys
from pathlib import Path

import pytest

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

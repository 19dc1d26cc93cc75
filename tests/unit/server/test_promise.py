"""The memory that is promised for a server rank, against what training and validation of each task take."""

import json
import os
import subprocess
import sys

import pytest

MEMORY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(1 << 18), "OMP_NUM_THREADS": "1"}
"""Large blocks go back to the system at once, so that the peak is that of the memory in use."""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is reset in /proc")
@pytest.mark.parametrize(
    ("task", "network"),
    [
        ("direct", "MLP"),
        ("autoregressive", "MLP"),
        ("acquisition", "MLP"),
        pytest.param("operator", "MLP", marks=pytest.mark.long),
        pytest.param("pointwise", "points", marks=pytest.mark.long),
        pytest.param("physics_informed", "points", marks=pytest.mark.long),
    ],
)
def test_training_validation_and_an_acquisition_of_the_user_take_less_memory_than_is_promised(
    task, network
):
    command = [sys.executable, "-m", "tests.unit.server.peaks", task, network]
    done = subprocess.run(command, env=os.environ | MEMORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 20 < found["used"] <= found["promised"], found

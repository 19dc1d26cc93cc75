"""A few minutes of storms; `python -m tests.faults.storm` plays more of them."""

import os
import time

import pytest

from tests.faults import storm, storm_machine

pytestmark = [pytest.mark.mpi, pytest.mark.long, pytest.mark.root, pytest.mark.timeout(900)]

SECONDS = float(os.environ.get("MELISSA_GEN_STORM_SECONDS", "240"))
SEED = int(os.environ.get("MELISSA_GEN_STORM_SEED", "1"))


def test_studies_survive_storms(capsys):
    """Every study finishes after its storm, and its accounting, files and processes are correct."""
    if problem := storm_machine.missing():
        pytest.skip(problem)
    began, seed, recoveries = time.monotonic(), SEED, []
    while time.monotonic() - began < SECONDS:
        recoveries += storm.one(seed)
        seed += 1
    with capsys.disabled():
        print(f"\n{seed - SEED} storms from seed {SEED}\n{storm.table(recoveries)}")
    assert recoveries

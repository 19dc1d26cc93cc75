"""A few minutes of storms; `python -m tests.faults.storm` plays more of them."""

import os
import time

import pytest

from tests.faults import storm, storm_machine, storm_records

pytestmark = [pytest.mark.mpi, pytest.mark.long, pytest.mark.root, pytest.mark.timeout(900)]

SECONDS = float(os.environ.get("MELISSA_GEN_STORM_SECONDS", "240"))
SEED = int(os.environ.get("MELISSA_GEN_STORM_SEED", "1"))


def test_studies_survive_storms(capsys):
    """Every study finishes after its storm, and its accounting, files and processes are correct."""
    if problem := storm_machine.missing():
        pytest.skip(problem)
    began, records = time.monotonic(), []
    while time.monotonic() - began < SECONDS:
        records.append(storm.one(SEED + len(records)))
    with capsys.disabled():
        print(f"\nstorms from seed {SEED}\n{storm_records.table(records)}")
    assert all(record.passed for record in records), [r for r in records if not r.passed]

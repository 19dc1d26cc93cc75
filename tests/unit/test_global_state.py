"""The check that every test leaves the process as it found it."""

import os

import numpy as np
import pytest

from tests.global_state import GlobalState


def change_environment():
    os.environ["MELISSA_GEN_TRIED"] = "1"


def change_folder():
    os.chdir("/")


def change_numpy():
    np.seterr(all="raise")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (change_environment, "MELISSA_GEN_TRIED None -> '1'"),
        (change_folder, "working directory"),
        (change_numpy, "numpy errors"),
    ],
)
def test_a_change_is_named_and_undone(change, named):
    before, errors = GlobalState.now(), np.geterr()
    change()
    (found,) = before.changes(GlobalState.now())
    assert named in found
    np.seterr(**errors)
    before.restore()
    assert before.changes(GlobalState.now()) == []

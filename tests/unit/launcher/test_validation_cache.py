"""When a cached validation set is valid, without running a solver."""

import numpy as np
import pytest

from melissa_gen.builders.dataset import dataset_settings
from melissa_gen.dataset import DatasetWriter
from melissa_gen.launcher.commands.validation_cache import (
    TOLERANCE,
    CachedSet,
    relative_difference,
    working_dir,
)


def cached_set(study, cache, files):
    return CachedSet(cache, dataset_settings(study, 1, 3, files))


@pytest.fixture
def made(study, tmp_path):
    """A set that was made while the solver had two files."""
    made = cached_set(study, tmp_path, {"solver.py": "1", "phys/core.py": "1"})
    with DatasetWriter(made.path, {"u": ((3,), "f4")}, 5, ["a", "b"], 1, made.settings) as writer:
        writer.begin(0, 0, [0.5, 1.5])
        writer.write_steps(0, 0, "u", np.zeros((5, 3), "f4"))
        writer.finish(0)
    return made


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"solver.py": "1", "phys/core.py": "1"}, ""),
        ({"solver.py": "1", "phys/core.py": "1", "new.txt": "1"}, ""),
        ({"solver.py": "1", "phys/core.py": "2"}, "phys/core.py changed"),
        ({"solver.py": "1"}, "phys/core.py changed"),
    ],
)
def test_a_changed_file_invalidates_the_set(study, tmp_path, made, files, words):
    now = cached_set(study, tmp_path, files)
    assert now.path == made.path
    assert now.difference() == words


def test_a_damaged_file_is_no_set(made):
    made.path.write_bytes(b"damaged")
    assert "can't be read" in made.difference()


@pytest.mark.parametrize(
    ("offset", "amplitude", "change", "same"),
    [
        (0.0, 1.0, 1e-6, True),
        (0.0, 1.0, 1e-2, False),
        (300.0, 1e-2, 3e-5, True),
        (300.0, 1.0, 0.1, False),
        (1.0, 0.0, 1e-7, True),
        (0.0, 0.0, 1.0, False),
    ],
)
def test_rounding_errors_are_no_difference(offset, amplitude, change, same):
    one = offset + amplitude * np.sin(np.arange(40.0)).reshape(4, 10)
    other = one + change * np.cos(np.arange(40.0)).reshape(4, 10)
    difference = relative_difference({"u": one}, {"u": other})
    assert (difference <= TOLERANCE) == same


def test_nan_is_a_difference():
    one = np.ones((2, 3))
    assert not relative_difference({"u": one}, {"u": one * np.nan}) <= TOLERANCE


def test_two_runs_that_need_the_same_set_do_not_share_a_directory(tmp_path):
    """Even before the first one has created its directory, the second does not delete it."""
    wanted = tmp_path / "0123.run"
    with working_dir(wanted) as first, working_dir(wanted) as second:
        assert first == wanted
        assert second != wanted
        assert second.parent == tmp_path
        for one in (first, second):
            one.mkdir()
    assert first.exists(), "an interrupted run is continued here"
    assert not second.exists()
    with working_dir(wanted) as later:
        assert later == wanted

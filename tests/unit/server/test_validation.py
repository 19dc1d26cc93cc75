"""The validation of one rank: the error of a trajectory in parts, and that of predicting the mean."""

import numpy as np
import pytest
import torch

from melissa_gen.dataset import DatasetWriter
from melissa_gen.server.training.validation import Validation
from melissa_gen.surrogates import Surrogate
from tests.unit.server.trainers import generator, world

__all__ = ["generator", "world"]


def trajectory(number):
    return np.sin(np.arange(7 * 5).reshape(7, 5) * (number + 1)).astype(np.float32) + 2.0


@pytest.fixture
def path(tmp_path):
    with DatasetWriter(tmp_path / "d.h5", {"u": ((5,), "f4")}, 7, ["a"], 3, {"seed": 1}) as writer:
        for row in range(3):
            writer.begin(row, row, [row / 3])
            for step, values in enumerate(trajectory(row)):
                writer.write(row, step, "u", values)
            writer.finish(row)
    return tmp_path / "d.h5"


def test_no_forward_pass_has_more_rows_than_a_batch(path):
    surrogate = Surrogate({"a": (0, 1)}, (0, 6), {"u": (5,)})
    rows = []
    surrogate.network.register_forward_hook(lambda module, given, out: rows.append(len(out)))
    whole = Validation(path, ["a"], torch.device("cpu"), 100).errors(surrogate)
    assert rows == [7, 7, 7]
    rows.clear()
    parts = Validation(path, ["a"], torch.device("cpu"), 3).errors(surrogate)
    assert rows == [3, 3, 1] * 3
    np.testing.assert_allclose(parts, whole, rtol=1e-6)


def test_the_error_of_the_mean(path):
    true = np.stack([trajectory(row) for row in range(3)]).astype(np.float64)
    wanted = [np.sqrt(np.square(one - true.mean()).mean() / np.square(one).mean()) for one in true]
    found = Validation(path, ["a"], torch.device("cpu"), 3).errors_of_mean()
    np.testing.assert_allclose(found, wanted, rtol=1e-5)

"""Sobol indices of a surrogate, against the analytic ones of the Ishigami function."""

import numpy as np
import pytest

from melissa_gen.errors import DataError
from melissa_gen.surrogates import Surrogate, sobol_indices
from melissa_gen.surrogates.sobol_indices import SurrogateIndices

pytest.importorskip("SALib", reason="install melissa_gen[sensitivity] to test it")

# The inputs of a network are in [-1, 1]. The second field has no variance at all.
NETWORK = """
import torch

class Ishigami(torch.nn.Module):
    def __init__(self, n_inputs, output_shape, noise=0.0):
        super().__init__()
        self.noise, self.scale = noise, torch.nn.Parameter(torch.ones(()))

    def forward(self, inputs):
        a, b, c = torch.pi * inputs[:, :3].T
        value = torch.sin(a) + 7 * torch.sin(b) ** 2 + 0.1 * c**4 * torch.sin(a)
        value = self.scale * value + self.noise * torch.sin(50 * b)
        # The mean over the two points is the value.
        return torch.stack([torch.stack([value - 1, value + 1], 1), torch.ones(len(a), 2)], 1)
"""
FIRST, TOTAL = [0.3139, 0.4424, 0.0], [0.5576, 0.4424, 0.2437]
BOUNDS = dict.fromkeys("abc", (-np.pi, np.pi))
FIELDS = {"u": (2,), "still": (2,)}


def ishigami(folder, noise=0.0):
    (folder / "ishigami.py").write_text(NETWORK)
    arguments = {"noise": noise}
    return Surrogate(BOUNDS, (0, 1), FIELDS, "ishigami.py:Ishigami", arguments, folder)


def test_the_indices_of_an_exact_network_are_the_analytic_ones(tmp_path):
    found = sobol_indices(ishigami(tmp_path), samples=4096)["u"]
    np.testing.assert_allclose(found.first_order, FIRST, atol=0.02)
    np.testing.assert_allclose(found.total_order, TOTAL, atol=0.02)
    assert found.std == pytest.approx(3.72, abs=0.02)
    assert (abs(found.first_order - FIRST) < found.first_order_width + 1e-3).all()
    assert (found.total_order_width < 0.1).all()


def test_a_field_that_does_not_vary_has_no_indices(tmp_path):
    found = sobol_indices(ishigami(tmp_path), samples=16)["still"]
    assert np.isnan(found.first_order).all() and np.isnan(found.total_order_width).all()


def test_time_prior_and_quantity_are_those_that_were_asked_for(tmp_path):
    seen = []

    def quantity(fields):
        seen.append(fields["u"].shape)
        return {"first": fields["u"][:, 0].astype(float)}

    constant = {"b": lambda cube: np.zeros_like(cube)}
    found = sobol_indices(ishigami(tmp_path), samples=1024, quantiles=constant, quantities=quantity)
    assert list(found) == ["first"] and seen == [(1024 * 5, 2)]
    assert found["first"].total_order[1] == 0
    assert found["first"].total_order[0] > 0.9


def test_the_limits_hold_for_a_surrogate_with_an_error(tmp_path):
    exact = np.array([FIRST, TOTAL])
    found = sobol_indices(ishigami(tmp_path, noise=2.0), samples=4096)["u"]
    # The error 2 sin(50 b) has the standard deviation sqrt(2).
    limits = found.limits(np.sqrt(2) / found.std)
    for name, row in zip(("first_order", "total_order"), exact, strict=True):
        assert (limits[name][0] <= row).all() and (row <= limits[name][1]).all()
    assert found.first_order[0] < 0.30


@pytest.mark.parametrize("error", [0.0, 0.1, 1.0, 5.0])
def test_limits_widen_with_the_error_and_stay_in_the_unit_interval(error):
    index, width = np.array([-0.01, 0.5, 1.02]), np.full(3, 0.02)
    limits = SurrogateIndices(index, width, index, width, 1.0).limits(error)["first_order"]
    assert (limits >= 0).all() and (limits <= 1).all()
    assert (limits[0] <= np.clip(index, 0, 1)).all() and (limits[1] >= np.clip(index, 0, 1)).all()
    if error >= 1:
        assert (limits[1] == 1).all()


def test_mistakes_are_told(tmp_path):
    with pytest.raises(DataError, match="samples is 1000; a power of two is legal"):
        sobol_indices(ishigami(tmp_path), samples=1000)
    other = ishigami(tmp_path)
    other.task = "autoregressive"
    with pytest.raises(DataError, match="task direct; this one has the task autoregressive"):
        sobol_indices(other)

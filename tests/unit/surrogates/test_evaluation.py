"""Derivatives and labeled arrays of a trained surrogate."""

import sys

import numpy as np
import pytest
import torch

from melissa_gen.errors import DataError
from melissa_gen.surrogates import AutoregressiveSurrogate, FieldScale, Surrogate


def surrogate_of(fields=None, ensemble=None):
    torch.manual_seed(3)
    surrogate = Surrogate(
        {"a": (0.1, 10.0), "b": (-1.0, 1.0)},
        (0.0, 2.0),
        fields or {"u": (3, 4), "p": (3, 4)},
        arguments={"hidden": [16]},
        ensemble=ensemble,
        scales={"p": FieldScale("log")},
        logarithmic=["a"],
    )
    names = list(surrogate.fields)
    surrogate.set_output_statistics(dict.fromkeys(names, 1.0), dict.fromkeys(names, 2.0))
    return surrogate


@pytest.mark.parametrize("ensemble", [None, ("heads", 2), ("members", 2)])
def test_derivatives_are_those_of_finite_differences(ensemble):
    """With a log scale of an input and of a field, and for the mean of an ensemble."""
    surrogate = surrogate_of(ensemble=ensemble)
    point, step = {"a": 2.0, "b": 0.3, "time": 0.7}, 1e-2
    found = surrogate.jacobian({"a": 2.0, "b": 0.3}, 0.7)
    for name in point:
        ends = []
        for sign in (-1, 1):
            moved = point | {name: point[name] + sign * step}
            time = moved.pop("time")
            ends.append(surrogate.predict(moved, time))
        for field in ("u", "p"):
            slope = (ends[1][field].astype(float) - ends[0][field]) / (2 * step)
            assert found[field][name].shape == (3, 4)
            np.testing.assert_allclose(found[field][name], slope, rtol=1e-2, atol=2e-3)


def test_derivatives_at_several_points_are_those_at_each():
    surrogate = surrogate_of()
    many = surrogate.jacobian({"a": [1.0, 2.0], "b": 0.3}, 0.7)
    assert many["u"]["time"].shape == (2, 3, 4)
    one = surrogate.jacobian({"a": 2.0, "b": 0.3}, 0.7)
    np.testing.assert_allclose(many["p"]["a"][1], one["p"]["a"], rtol=1e-5)
    assert surrogate.training and all(p.grad is None for p in surrogate.parameters())


def test_a_surrogate_that_needs_more_inputs_has_no_derivatives_by_them():
    autoregressive = AutoregressiveSurrogate(
        parameters={"a": (0.0, 1.0)}, times=(0.0, 1.0), fields={"u": (3,)}
    )
    with pytest.raises(DataError, match=r"jacobian needs .* this one has the task autoregressive"):
        autoregressive.jacobian({"a": 0.5}, 0.5)
    with pytest.raises(DataError, match=r"to_xarray needs .* this one has the task autoregressive"):
        autoregressive.to_xarray({"a": 0.5}, [0.5])


def test_labeled_predictions_of_several_simulations():
    pytest.importorskip("xarray")
    surrogate = surrogate_of({"u": (3, 4), "p": (3,), "flux": ()})
    found = surrogate.to_xarray({"a": [1.0, 2.0], "b": 0.3}, [0.0, 0.5, 1.0])
    assert found["u"].dims == ("simulation", "time", "axis_0", "axis_1")
    assert dict(found.sizes) == {"simulation": 2, "time": 3, "axis_0": 3, "axis_1": 4}
    assert found["a"].values.tolist() == [1.0, 2.0] and found["b"].values.tolist() == [0.3, 0.3]
    wanted = surrogate.predict({"a": 2.0, "b": 0.3}, 0.5)
    for name in ("u", "p", "flux"):
        values = found[name].isel(simulation=1).sel(time=0.5)
        np.testing.assert_allclose(values, wanted[name], rtol=1e-5)


def test_fields_of_different_shapes_have_axes_of_their_own():
    pytest.importorskip("xarray")
    found = surrogate_of({"u": (3,), "p": (4,)}).to_xarray({"a": 1.0, "b": 0.3}, 0.5)
    assert found["u"].dims == ("simulation", "time", "u_axis_0")
    assert found["p"].dims == ("simulation", "time", "p_axis_0")


def test_mistakes_are_one_sentence(monkeypatch):
    surrogate = surrogate_of()
    with pytest.raises(DataError, match="also needs a value of b"):
        surrogate.jacobian({"a": 1.0}, 0.5)
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(DataError, match="pip install xarray"):
        surrogate.to_xarray({"a": 1.0, "b": 0.3}, [0.5])


def test_parameters_of_different_lengths_are_refused():
    pytest.importorskip("xarray")
    with pytest.raises(DataError, match="arrays \\(n,\\) of one length"):
        surrogate_of().to_xarray({"a": [1.0, 2.0], "b": [0.1, 0.2, 0.3]}, [0.5])

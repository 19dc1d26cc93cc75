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


def finite_differences(predict, values, step=1e-2):
    """Derivatives of `predict(values)` by each of the values, on the last axes."""
    found = np.empty((*predict(values).shape, values.size))
    for k in range(values.size):
        shift = np.zeros(values.size)
        shift[k] = step
        ends = [predict(values + sign * shift.reshape(values.shape)) for sign in (1, -1)]
        found[..., k] = (ends[0].astype(float) - ends[1]) / (2 * step)
    return found.reshape(*found.shape[:-1], *values.shape)


@pytest.mark.parametrize("history", [1, 2])
def test_derivatives_of_a_rollout_by_parameters_and_first_steps(history):
    rng = np.random.default_rng(1)
    torch.manual_seed(3)
    surrogate = AutoregressiveSurrogate(
        parameters={"a": (0.0, 1.0)},
        times=(0.0, 4.0),
        fields={"u": (3, 2), "p": (3, 2)},
        arguments={"hidden": [16], "activation": "silu"},
        history=history,
        predicts="increment",
        time=True,
    )
    shape = (3, 2) if history == 1 else (history, 3, 2)
    initial = {name: rng.normal(size=shape) for name in ("u", "p")}
    found = surrogate.jacobian({"a": 0.4}, initial, steps=3)
    assert found["u"]["p"].shape == (3, 3, 2, *shape) and found["p"]["a"].shape == (3, 3, 2)

    def predicted(u):
        return surrogate.predict({"a": 0.4}, {**initial, "u": u}, 3)["p"]

    slopes = finite_differences(predicted, initial["u"])
    np.testing.assert_allclose(found["p"]["u"], slopes, rtol=2e-2, atol=2e-3)
    along = surrogate.jacobian({"a": 0.4}, initial, 3, directions={"u": np.ones(shape)})
    assert set(along["p"]) == {"a", "u"}
    summed = found["p"]["u"].sum(axis=tuple(range(-len(shape), 0)))
    np.testing.assert_allclose(along["p"]["u"], summed, rtol=1e-4, atol=1e-5)
    with pytest.raises(DataError, match=r"directions names 'v'; legal are the given fields: u, p"):
        surrogate.jacobian({"a": 0.4}, initial, directions={"v": 1.0})
    with pytest.raises(DataError, match=r"directions\['u'\] has the shape \(\); it must be"):
        surrogate.jacobian({"a": 0.4}, initial, directions={"u": 1.0})


def test_a_rollout_has_labeled_axes():
    pytest.importorskip("xarray")
    surrogate = AutoregressiveSurrogate(
        parameters={"a": (0.0, 1.0)}, times=(1.0, 9.0), fields={"u": (3,)}, stride=2, interval=0.5
    )
    first = np.array([0.5, -1.0, 0.2])
    found = surrogate.to_xarray({"a": 0.5}, {"u": first}, steps=4)
    assert found["u"].dims == ("simulation", "time", "axis_0")
    assert found["time"].values.tolist() == [2.0, 3.0, 4.0, 5.0] and found["a"].values == [0.5]
    np.testing.assert_array_equal(
        found["u"][0], surrogate.predict({"a": 0.5}, {"u": first}, 4)["u"]
    )


def test_too_many_derivatives_are_refused_with_the_way_out():
    surrogate = AutoregressiveSurrogate(
        parameters={"a": (0.0, 1.0)},
        times=(0.0, 1.0),
        fields={"u": (20_000,)},
        arguments={"hidden": [1]},
    )
    given = {"u": np.zeros(20_000)}
    with pytest.raises(DataError, match=r"20,000 x 20,000 values, .* give directions"):
        surrogate.jacobian({"a": 0.5}, given)
    along = surrogate.jacobian({"a": 0.5}, given, directions={"u": np.ones(20_000)})
    assert along["u"]["u"].shape == (1, 20_000)


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

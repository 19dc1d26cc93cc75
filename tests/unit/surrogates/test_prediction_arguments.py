"""Wrong arguments of `predict`, `jacobian`, `to_xarray` and `export` are one sentence; extrapolation is warned of."""

import warnings

import numpy as np
import pytest
import torch

from melissa_gen.error_bounds import FirstErrors
from melissa_gen.errors import DataError, RunError
from melissa_gen.surrogates import (
    AutoregressiveSurrogate,
    OperatorSurrogate,
    PointSurrogate,
    Surrogate,
    TrajectorySurrogate,
    export,
    load,
    save,
)

COMMON = {"parameters": {"a": (0.0, 1.0)}, "times": (0.0, 4.0), "arguments": {"hidden": [4]}}
GOOD = {"a": 0.5}
U, K = {"u": np.zeros(3)}, {"k": np.zeros(2)}
MADE = {
    "direct": lambda **more: Surrogate(**COMMON, fields={"u": (3,)}, **more),
    "autoregressive": lambda **more: AutoregressiveSurrogate(**COMMON, fields={"u": (3,)}, **more),
    "operator": lambda **more: OperatorSurrogate(
        **COMMON, fields={"u": (3,)}, inputs={"k": (2,)}, **more
    ),
    "trajectory": lambda **more: TrajectorySurrogate(
        **COMMON, fields={"u": (3,)}, inputs={"k": (2,)}, time_steps=5, **more
    ),
    "pointwise": lambda **more: PointSurrogate(
        **COMMON, fields={"u": ()}, grid=[3], extent={"x": (0.0, 2.0)}, **more
    ),
}


def sentence(task, method, *arguments, error=DataError, **named):
    with torch.random.fork_rng(), pytest.raises(error) as caught:
        getattr(MADE[task](), method)(*arguments, **named)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 300
    return text


@pytest.mark.parametrize(
    ("task", "method", "arguments", "words"),
    [
        ("direct", "predict", ([0.5], 1.0), "parameters is [0.5]; it must map names to values"),
        ("direct", "predict", ({"a": "high"}, 1.0), "parameter 'a' is 'high'; it must be a finite"),
        ("direct", "predict", ({"a": None}, 1.0), "parameter 'a' is None; it must be a finite"),
        ("direct", "predict", (GOOD, np.nan), "time is nan; it must be a finite number"),
        ("direct", "predict", ({"a": [1, 0]}, [1, 2, 3]), "parameter 'a' (2,), time (3,)"),
        ("direct", "jacobian", ({"a": [[1.0]]}, 1.0), "they must be numbers, or arrays (n,)"),
        ("direct", "to_xarray", (GOOD, "now"), "times is 'now'; it must be a finite number"),
        ("direct", "to_xarray", ({"a": [[1.0]]}, 1.0), "they must be numbers, or arrays (n,)"),
        ("direct", "error_bound", ({"a": 0.5}, 2.0), "level is 2; it is a probability"),
        ("autoregressive", "predict", (GOOD, 0.5, 3), "initial is 0.5; it must map names"),
        ("autoregressive", "predict", (GOOD, {"v": 1}, 3), "initial holds v; it must hold u"),
        (
            "autoregressive",
            "predict",
            ({"a": [0.1, 0.2]}, U, 3),
            "parameter 'a' has the shape (2,)",
        ),
        ("autoregressive", "predict", (GOOD, U, -1), "steps is -1; legal are whole numbers from 0"),
        ("autoregressive", "predict", (GOOD, U, 2.5), "steps is 2.5; legal are whole numbers"),
        ("autoregressive", "predict", (GOOD, U, [1]), "steps is [1]; legal are whole numbers"),
        ("autoregressive", "predict", (GOOD, U, 1, [0, 1]), "time has the shape (2,); here it is"),
        (
            "autoregressive",
            "predict",
            (GOOD, {"u": [0, 1, np.inf]}, 1),
            "initial['u'] is [0, 1, inf",
        ),
        ("autoregressive", "jacobian", (GOOD, U, 0), "steps is 0; legal are whole numbers from 1"),
        ("autoregressive", "jacobian", ({"a": np.ones(2)}, U), "each parameter is a single number"),
        ("autoregressive", "jacobian", (GOOD, U, 1, [0.0]), "time has the shape (1,); here it is"),
        ("autoregressive", "jacobian", (GOOD, U, 1, None, [1]), "directions is [1]; it must map"),
        ("autoregressive", "to_xarray", ([0.5], U, 1), "parameters is [0.5]; it must map names"),
        ("operator", "predict", (GOOD, np.zeros(2), 1.0), "inputs is array([0., 0.]); it must map"),
        (
            "operator",
            "predict",
            (GOOD, {"k": ["x", "y"]}, 1.0),
            "inputs['k'] is ['x', 'y']; it must",
        ),
        (
            "operator",
            "predict",
            (GOOD, K, [[1.0]]),
            "time has the shape (1, 1); it must be a number",
        ),
        ("operator", "jacobian", (GOOD, K, [1.0, 2.0]), "time has the shape (2,); here it is a"),
        (
            "operator",
            "to_xarray",
            (0.5, K, [1.0]),
            "parameters is 0.5; it must map names to values",
        ),
        ("trajectory", "predict", (GOOD, {}), "inputs holds nothing; it must hold k"),
        ("trajectory", "jacobian", ({"a": "b"}, K), "parameter 'a' is 'b'; it must be a finite"),
        ("pointwise", "predict", (GOOD, 1.0, "origin"), "coordinates is 'origin'; it must be a"),
        ("pointwise", "predict", (GOOD, [1.0], [[0.5]]), "time has the shape (1,); here it is a"),
        ("pointwise", "jacobian", ({"b": 0.5}, 1.0), "the surrogate has no parameter 'b'"),
    ],
)
def test_each_wrong_argument_is_named_with_what_is_legal(task, method, arguments, words):
    assert words in sentence(task, method, *arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("runs/heat-1", "a.pt2"), "surrogate is 'runs/heat-1'; load it first"),
        ((None, "a.pt2", 0), "batch_size is 0; legal are whole numbers from 1"),
        ((None, "a.pt2", 2.0), "batch_size is 2.0; legal are whole numbers from 1"),
        ((None, "a.h5"), "the suffix decides the format"),
    ],
)
def test_wrong_arguments_of_export_are_named(tmp_path, arguments, words):
    surrogate, name, *rest = arguments
    with pytest.raises(RunError) as caught:
        export(surrogate or MADE["direct"](), tmp_path / name, *rest)
    assert words in str(caught.value)


def test_names_that_mean_two_things_are_refused():
    parts = {"times": (0.0, 1.0), "arguments": {"hidden": [4]}}
    timed = Surrogate({"time": (0.0, 1.0)}, fields={"u": (3,)}, **parts)
    with pytest.raises(DataError, match="parameter 'time' from the physical time of the same name"):
        timed.jacobian({"time": 0.5}, 0.5)
    assert timed.predict({"time": 0.5}, 0.5)["u"].shape == (3,)
    pytest.importorskip("xarray")
    for name, kind in (("time", "axis"), ("axis_0", "axis"), ("u", "field")):
        surrogate = Surrogate({name: (0.0, 1.0)}, fields={"u": (3,)}, **parts)
        with pytest.raises(DataError, match=f"parameter '{name}' from the {kind} of the same name"):
            surrogate.to_xarray({name: 0.5}, [0.5])
    both = OperatorSurrogate(
        parameters={"a": (0, 1)}, fields={"u": (3,)}, inputs={"time": (2,)}, **parts
    )
    with pytest.raises(DataError, match="input 'time' from the physical time of the same name"):
        both.jacobian({"a": 0.5}, {"time": np.zeros(2)}, 0.5)
    both = AutoregressiveSurrogate(parameters={"u": (0, 1)}, fields={"u": (3,)}, **parts)
    with pytest.raises(DataError, match="parameter 'u' from the field of the same name"):
        both.jacobian({"u": 0.5}, U)


@pytest.mark.parametrize(
    ("task", "arguments", "words"),
    [
        ("autoregressive", ({"a": 2.0}, U, 1), "prediction at a = 2 is an extrapolation"),
        ("autoregressive", (GOOD, U, 5), "prediction at time = 5 is an extrapolation"),
        ("autoregressive", (GOOD, U, 1, -1.0), "prediction at time = -1 is an extrapolation"),
        ("autoregressive", (GOOD, {"u": [0, 0, 9]}, 1), "prediction at u = 9 is an extrapolation"),
        ("operator", (GOOD, {"k": [0, -9]}, 1.0), "prediction at k = -9 is an extrapolation"),
        ("trajectory", (GOOD, {"k": [0, -9]}), "prediction at k = -9 is an extrapolation"),
        ("pointwise", (GOOD, 1.0, [[3.0]]), "prediction at x = 3 is an extrapolation"),
    ],
)
def test_inputs_outside_of_the_training_are_warned_of(tmp_path, task, arguments, words):
    surrogate = MADE[task]()
    surrogate.ranges = {"u": (-1.0, 1.0), "k": (-1.0, 1.0)}
    save(surrogate, tmp_path)
    surrogate = load(tmp_path)
    with pytest.warns(UserWarning, match=words) as found:
        surrogate.predict(*arguments)
    assert found[0].filename == __file__


@pytest.mark.parametrize("method", ["predict", "jacobian", "to_xarray", "error_bound"])
@pytest.mark.parametrize("task", list(MADE))
def test_a_warning_names_the_line_that_has_called(task, method):
    if method == "to_xarray":
        pytest.importorskip("xarray")
    surrogate = MADE[task]()
    surrogate.first_errors = FirstErrors(np.ones((20, 1)), np.ones(20), np.ones(20), "rmse")
    more = {"direct": (1.0,), "pointwise": (1.0,), "autoregressive": (U, 1)}
    more |= {"operator": (K, 1.0), "trajectory": (K,)}
    arguments = () if method == "error_bound" else more[task]
    with pytest.warns(UserWarning, match="at a = 2 is an extrapolation") as found:
        getattr(surrogate, method)({"a": 2.0}, *arguments)
    assert {one.filename for one in found} == {__file__}


def test_a_rollout_within_the_training_is_not_warned_of():
    surrogate = MADE["autoregressive"](history=2, stride=2)
    surrogate.ranges = {"u": (-1.0, 1.0)}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        # A tenth beyond the range of the samples is no extrapolation.
        surrogate.predict(GOOD, {"u": np.full((2, 3), 1.15)}, 1)
        surrogate.jacobian(GOOD, {"u": np.zeros((2, 3))}, 1)

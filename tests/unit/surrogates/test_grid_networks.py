"""Networks on regular grids: U-Net, DeepONet and the neural operators of neuraloperator."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch

from melissa_gen.errors import StudyError
from melissa_gen.surrogates import DeepONet, Surrogate, UNet, load, load_class, save
from melissa_gen.surrogates.grid import Grid
from melissa_gen.surrogates.training_trial import TrainingTrial

operators = pytest.mark.skipif(
    importlib.util.find_spec("neuralop") is None, reason="needs the package neuraloperator"
)
OPERATORS = {
    name: {"n_modes": 4, "hidden_channels": 8, **more}
    for name, more in {"FNO": {}, "TFNO": {"rank": 0.5}, "UNO": {}}.items()
}
NETWORKS = [
    ("UNet", {"width": 8, "levels": 2}),
    ("UNet", {"width": 8, "levels": 1, "conditioning": "channels"}),
    ("DeepONet", {"basis": 8, "branch": [16], "trunk": [16]}),
    *(
        pytest.param(name, sizes | more, marks=operators)
        for name, sizes in OPERATORS.items()
        for more in ({}, {"conditioning": "film"})
    ),
]


def surrogate_of(name, arguments, shape=(12, 10), **more):
    bounds = {"a": (0.0, 1.0), "b": (2.0, 3.0)}
    path = f"melissa_gen.surrogates.{name}"
    return Surrogate(bounds, (0.0, 1.0), {"u": shape}, path, arguments, **more)


def trained(surrogate):
    """Returns a surrogate after some training steps, in evaluation mode: at first, FiLM changes nothing."""
    trial = TrainingTrial(surrogate, torch.optim.Adam(surrogate.parameters(), lr=0.02))
    for _ in range(3):
        trial.step(4)
    return surrogate.eval()


@pytest.mark.parametrize("shape", [(16,), (12, 10), (2, 12, 10)])
@pytest.mark.parametrize(("name", "arguments"), NETWORKS)
def test_a_network_fits_the_grid_can_be_trained_and_saved(name, arguments, shape, tmp_path):
    surrogate = surrogate_of(name, arguments, shape)
    TrainingTrial(surrogate, torch.optim.Adam(surrogate.parameters())).run(4)
    assert all(isinstance(value, torch.Tensor) for value in surrogate.state_dict().values())
    save(surrogate, tmp_path)
    inputs = (torch.rand(3, 2) + torch.tensor([0.0, 2.0]), torch.rand(3))
    expected = surrogate.eval()(*inputs)
    assert expected.shape == (3, *shape)
    torch.testing.assert_close(load(tmp_path).eval()(*inputs), expected)


@pytest.mark.parametrize(("name", "arguments"), NETWORKS)
def test_parameters_and_time_change_the_output(name, arguments):
    network = trained(surrogate_of(name, arguments)).network
    inputs = torch.zeros(1, 3)
    for column in range(3):
        moved = inputs.clone()
        moved[0, column] = 1.0
        assert (network(moved) - network(inputs)).abs().max() > 1e-5


@pytest.mark.parametrize(("name", "arguments"), NETWORKS)
def test_the_output_depends_on_the_position(name, arguments):
    output = surrogate_of(name, arguments).network.eval()(torch.ones(1, 3))[0]
    assert output.std(dim=0).min() > 0 and output.std(dim=1).min() > 0


@pytest.mark.parametrize(("name", "arguments"), NETWORKS)
def test_derivatives_by_parameters_and_time_are_those_of_finite_differences(name, arguments):
    surrogate = trained(surrogate_of(name, arguments))
    point, time, step = {"a": 0.4, "b": 2.6}, 0.5, 1e-2
    slopes = surrogate.jacobian(point, time)["u"]
    for key in ("a", "b", "time"):
        ends = [
            surrogate.predict(
                {k: v + sign * step * (k == key) for k, v in point.items()},
                time + sign * step * (key == "time"),
            )["u"]
            for sign in (-1, 1)
        ]
        expected = (ends[1] - ends[0]) / (2 * step)
        np.testing.assert_allclose(slopes[key], expected, rtol=0.02, atol=5e-3)


@pytest.mark.parametrize(("name", "arguments"), NETWORKS)
def test_a_network_can_be_trained_in_bfloat16(name, arguments):
    surrogate = surrogate_of(name, arguments, (16, 16))
    TrainingTrial(surrogate, torch.optim.Adam(surrogate.parameters()), bf16=True).run(4)


@pytest.mark.parametrize("shape", [(16,), (12, 10), (2, 12, 10)])
@pytest.mark.parametrize(("name", "arguments"), NETWORKS)
def test_each_head_is_the_network_with_a_last_layer_of_its_own(name, arguments, shape):
    """Each head equals a single network that has the shared weights and the head's part of the last layer."""
    heads = trained(surrogate_of(name, arguments, shape, ensemble=("heads", 3)))
    inputs = (torch.rand(2, 2) + torch.tensor([0.0, 2.0]), torch.rand(2))
    found, own = heads.member_outputs(*inputs), heads.network.network.state_dict()
    single = surrogate_of(name, arguments, shape).eval()
    of_head = set()
    for k in range(3):
        for key, weight in single.network.state_dict().items():
            if not isinstance(weight, torch.Tensor):
                continue
            if own[key].shape != weight.shape:
                of_head.add(key)
            weight.copy_(own[key] if own[key].shape == weight.shape else own[key].chunk(3)[k])
        torch.testing.assert_close(found[:, k : k + 1], single.member_outputs(*inputs))
    assert 1 <= len(of_head) <= 3


@pytest.mark.parametrize("network", [UNet, DeepONet])
def test_a_number_of_heads_that_is_not_that_of_the_ensemble_is_refused(network):
    with pytest.raises(StudyError, match=r"ensemble_heads is 2: leave it out, it follows"):
        network(3, (3, 16, 16), ensemble_heads=2)


@pytest.mark.parametrize("network", [UNet, DeepONet])
def test_more_given_values_than_inputs_are_refused(network):
    with pytest.raises(StudyError, match=r"count 16 values of given fields, but the network has 3"):
        network(3, (16,), history=1, conditioning="film")


@operators
@pytest.mark.parametrize("name", OPERATORS)
def test_film_is_at_first_the_identity(name):
    given = {"conditioning": "film", "history": 1, **OPERATORS[name]}
    network = load_class(f"melissa_gen.surrogates.{name}")(3 + 16, (16,), **given).eval()
    fields = torch.randn(2, 16)
    plain = network.operator(fields[:, None])[:, 0]
    torch.testing.assert_close(network(torch.cat([torch.randn(2, 3), fields], 1)), plain)


@pytest.mark.parametrize(
    ("shape", "dimensions", "expected"),
    [
        ((64,), None, (1, (64,))),
        ((8, 9), None, (1, (8, 9))),
        ((8, 9), 1, (8, (9,))),
        ((2, 3, 8, 9), None, (6, (8, 9))),
        ((4, 5, 6), 3, (1, (4, 5, 6))),
    ],
)
def test_the_last_axes_are_the_grid(shape, dimensions, expected):
    assert Grid.of(shape, dimensions)[:2] == expected


def test_coordinates_run_from_end_to_end_of_each_axis():
    found = Grid(1, (3, 2)).coordinates()
    assert found[0].tolist() == [[-1, -1], [0, 0], [1, 1]]
    assert found[1].tolist() == [[-1, 1]] * 3


@pytest.mark.parametrize(
    ("network", "arguments", "sentence"),
    [
        (UNet, {"width": 12}, "width is 12: legal are multiples of 8"),
        (UNet, {"levels": 5}, r"levels is 5: legal are 0 to 4 for a grid of \(16, 16\)"),
        (UNet, {"conditioning": "fim"}, r"legal are film, channels \(did you mean 'film'\?\)"),
        (DeepONet, {"conditioning": "fim"}, "legal are film, channels"),
        (
            DeepONet,
            {"conditioning": "film"},
            "needs given fields and a hidden layer: legal here is",
        ),
        (UNet, {"dimensions": 3}, "dimensions is 3: legal are 1 to 2"),
        (DeepONet, {"dimensions": 0}, "dimensions is 0: legal are 1 to 2"),
        (DeepONet, {"activation": "gelo"}, "did you mean 'gelu'"),
    ],
)
def test_wrong_arguments_have_one_sentence(network, arguments, sentence):
    with pytest.raises(StudyError, match=sentence):
        network(3, (16, 16), **arguments)


@operators
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"n_modes": [4]}, r"n_modes is \[4\]: legal is one number for each axis"),
        ({"n_modes": 99}, r"at most \[12, 10\]"),
        ({"hidden_chanels": 4}, "surrogate.arguments.*hidden_chanels"),
        ({"conditioning": "Film"}, "conditioning is 'Film': legal are film, channels"),
        ({"conditioning": "film", "positional_embedding": None}, "leave out .*embedding, or set"),
    ],
)
def test_wrong_arguments_of_operators_have_one_sentence(arguments, sentence):
    with pytest.raises(StudyError, match=sentence):
        surrogate_of("FNO", arguments)


def test_without_the_package_an_operator_says_what_to_install():
    code = (
        "import sys; sys.modules['neuralop'] = None\n"
        "from melissa_gen.surrogates import FNO\n"
        "FNO(3, (8, 8))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'melissa-gen[operators]'" in done.stderr.splitlines()[-1]

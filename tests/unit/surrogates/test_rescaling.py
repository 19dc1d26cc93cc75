"""A new scale of the output changes what the network learns next, not what it predicts."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from melissa_gen.surrogates import FieldScale, Surrogate, SurrogateProbe, load, save

POINTS = {"a": np.linspace(0.0, 1.0, 7)}
TIMES = np.linspace(0.0, 2.0, 7)
FIRST = FieldScale(channels="first")


class Convolution(nn.Module):
    """Ends in a layer with one weight for each channel, not for each value."""

    def __init__(self, n_inputs, output_shape):
        super().__init__()
        self.shape = output_shape
        self.first = nn.Linear(n_inputs, 8 * output_shape[1])
        self.last = nn.Conv1d(8, output_shape[0], 3, padding=1)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x)).reshape(len(x), 8, -1))


class Bounded(nn.Module):
    """A nonlinear function follows the last layer."""

    def __init__(self, n_inputs, output_shape):
        super().__init__()
        self.shape = output_shape
        self.last = nn.Linear(n_inputs, int(np.prod(output_shape)))

    def forward(self, x):
        return torch.tanh(3.0 * self.last(x)).reshape(len(x), *self.shape)


class Tied(nn.Module):
    """The last layer shares its weights with the first one."""

    def __init__(self, n_inputs, output_shape):
        super().__init__()
        self.shape = output_shape
        self.layer = nn.Linear(n_inputs, n_inputs)
        assert n_inputs == 2 and output_shape == (2,)

    def forward(self, x):
        return self.layer(torch.relu(self.layer(x)))


def own(name):
    return f"{__file__}:{name}"


MLP = "melissa_gen.surrogates.MLP"
NETWORKS = [
    # class, fields, scales, ensemble, whether the last layer can take the scale
    (MLP, {"u": (3, 4)}, {}, None, True),
    (MLP, {"u": (3, 4)}, {"u": FIRST}, None, True),
    (MLP, {"u": (4, 3)}, {"u": FieldScale(channels="last")}, ("heads", 3), True),
    (MLP, {"u": (3, 4), "v": (3, 4)}, {"u": FIRST}, ("members", 2), True),
    (MLP, {"u": (3,), "v": (), "w": (2, 2)}, {"v": FieldScale("log")}, ("heads", 2), True),
    (own("Convolution"), {"u": (3, 5)}, {"u": FIRST}, None, True),
    (own("Convolution"), {"u": (3, 5)}, {}, None, True),
    (own("Convolution"), {"u": (5, 3)}, {"u": FieldScale(channels="last")}, None, False),
    (own("Bounded"), {"u": (3, 4)}, {}, None, False),
    (own("Tied"), {"u": (2,)}, {}, None, False),
]


def make(network, fields, scales, ensemble):
    torch.manual_seed(3)
    arguments = {"hidden": [16]} if network == MLP else {}
    made = Surrogate(
        {"a": (0, 1)}, (0, 2), fields, network, arguments, ensemble=ensemble, scales=scales
    )
    # Random initial outputs, with a scale that is not the trivial one.
    made.output_mean.uniform_(-1.0, 1.0)
    made.output_std.uniform_(0.5, 2.0)
    return made


@pytest.mark.parametrize(("network", "fields", "scales", "ensemble", "possible"), NETWORKS)
def test_rescaling_does_not_change_the_function(
    network, fields, scales, ensemble, possible, tmp_path
):
    surrogate = make(network, fields, scales, ensemble)
    before = surrogate.predict(POINTS, TIMES)
    members = surrogate.member_outputs(torch.rand(4, 1), torch.rand(4)).shape
    for factor in (1.7, 0.6, 30.0 if possible else 2.5):
        random = np.random.default_rng(int(10 * factor))
        channels = len(surrogate.output_mean)
        mean, width = random.normal(size=channels), factor * random.uniform(0.9, 1.1, channels)
        found = surrogate.rescale_output(mean, width)
        np.testing.assert_array_equal(surrogate.output_std, width)
        assert found.in_last_layer == possible
        assert surrogate.corrected != possible
    after = surrogate.predict(POINTS, TIMES)
    for name, values in before.items():
        np.testing.assert_allclose(after[name], values, rtol=1e-4, atol=1e-4)
    assert surrogate.member_outputs(torch.rand(4, 1), torch.rand(4)).shape == members
    save(surrogate, tmp_path)
    again = load(tmp_path)
    assert again.corrected == surrogate.corrected
    for name, values in again.predict(POINTS, TIMES).items():
        np.testing.assert_array_equal(values, after[name])


def test_a_corrected_network_can_still_learn():
    surrogate = make(own("Bounded"), {"u": (3,)}, {}, None)
    surrogate.set_output_statistics({"u": 0.0}, {"u": 1e-7})
    surrogate.rescale_output(np.array([0.0]), np.array([1.0]))
    assert np.abs(surrogate.predict(POINTS, TIMES)["u"]).max() <= 0.1
    assert surrogate.output_gain.item() == pytest.approx(0.1)


def test_gradients_change_by_the_returned_factors():
    """The optimizer's state is scaled by them."""
    surrogate = make(MLP, {"u": (4,)}, {}, None)
    inputs, fields = (torch.rand(9, 1), torch.rand(9)), {"u": torch.rand(9, 4)}

    def gradients():
        surrogate.zero_grad()
        loss = (surrogate(*inputs, standardized=True) - surrogate.target(fields)).square().mean()
        loss.backward()
        return {p: p.grad.clone() for p in surrogate.parameters()}

    before = gradients()
    mean = surrogate.output_mean.numpy().copy()
    found = surrogate.rescale_output(mean, surrogate.output_std.numpy() * 8.0)
    assert found.loss_factor == pytest.approx(1 / 64)
    assert len(found.factors) == 2
    for parameter, gradient in gradients().items():
        factor = found.factors.get(parameter, torch.tensor(found.loss_factor))
        torch.testing.assert_close(gradient, before[parameter] * factor, rtol=1e-3, atol=1e-7)


def test_a_probe_compares_only_surrogates_of_one_scale():
    surrogates = [make(MLP, {"u": (4,)}, {}, None) for _ in range(2)]
    surrogates[1].rescale_output(np.array([0.5]), np.array([40.0]))
    points = np.array([[0.2], [0.8]])
    probe = SurrogateProbe(surrogates[:1]).with_newer(surrogates[1], 3)
    alone = SurrogateProbe(surrogates[1:])
    np.testing.assert_array_equal(probe.features(points), alone.features(points))


def test_a_corrected_surrogate_is_probed_with_its_correction():
    surrogate = make(MLP, {"u": (4,)}, {}, None)
    plain = SurrogateProbe([surrogate], times=3).features(np.array([[0.3]]))
    surrogate.output_gain.fill_(10.0)
    surrogate.corrected = True
    found = SurrogateProbe([surrogate], times=3).features(np.array([[0.3]]))
    magnitude = SurrogateProbe.names.index("magnitude")
    assert found[0, magnitude] - plain[0, magnitude] == pytest.approx(np.log(10.0), abs=1e-3)


def test_logarithms_of_parameters_reach_the_network():
    surrogate = Surrogate(
        {"nu": (1e-6, 1.0), "b": (-1, 1)}, (0, 2), {"u": (2,)}, logarithmic=["nu"]
    )
    seen = []
    surrogate.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    given = torch.tensor([[1e-6, -1], [1e-3, 0], [1, 1]], dtype=torch.float64, requires_grad=True)
    surrogate(given, torch.tensor([0.0, 1, 2])).sum().backward()
    np.testing.assert_allclose(seen[0].detach(), [[-1, -1, -1], [0, 0, 0], [1, 1, 1]], atol=1e-6)
    assert torch.isfinite(given.grad).all()
    zero = torch.zeros(1, 2, dtype=torch.float64)
    assert torch.isfinite(surrogate(zero, zero[:, 0])).all()


def test_a_log_scale_predicts_positive_values(tmp_path):
    surrogate = make(MLP, {"u": (3,)}, {"u": FieldScale("log")}, None)
    values = torch.tensor([[1e-8, 1.0, 1e8]])
    surrogate.set_output_statistics({"u": 0.0}, {"u": 10.0})
    torch.testing.assert_close(surrogate.target({"u": values}), values.log() / 10)
    assert (surrogate.predict(POINTS, TIMES)["u"] > 0).all()


def test_predictions_outside_the_trained_bounds_warn(recwarn):
    surrogate = make(MLP, {"u": (3,)}, {}, None)
    surrogate.predict(POINTS, TIMES)
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"a between 0 and 1; its prediction at a = 1\.5 is"):
        surrogate.predict({"a": [0.5, 1.5]}, 1.0)
    with pytest.warns(UserWarning, match="time between 0 and 2") as found:
        surrogate.predict({"a": 0.5}, 7.0)
    assert found[0].filename == __file__


def test_format_2_is_read(tmp_path):
    """Written before scales, channels and corrections existed."""
    surrogate = make(MLP, {"u": (3,)}, {}, None)
    save(surrogate, tmp_path)
    model = json.loads((tmp_path / "model.json").read_text()) | {"format": 2}
    del model["scales"], model["logarithmic"]
    (tmp_path / "model.json").write_text(json.dumps(model))
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    del tensors["output_gain"], tensors["output_offset"]
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    found = load(tmp_path).predict(POINTS, TIMES)
    np.testing.assert_array_equal(found["u"], surrogate.predict(POINTS, TIMES)["u"])

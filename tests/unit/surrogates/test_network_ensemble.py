"""Ensembles: shapes, the mean as prediction, files, losses of each member, gradients of each sample."""

import numpy as np
import pytest
import torch
from torch import nn

from melissa_gen.surrogates import (
    LastLayer,
    Surrogate,
    SurrogateProbe,
    load,
    member_losses,
    per_sample_loss,
    save,
)

FIELDS = [{"u": (6,)}, {"u": ()}, {"u": (4, 3), "v": (4, 3)}, {"u": (4,), "v": (2, 2)}]


@pytest.fixture(autouse=True)
def generator():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        yield


def make(kind, fields=FIELDS[0], count=3):
    arguments = {"hidden": [8], "activation": "tanh"}
    bounds = {"a": (0.0, 1.0)}
    return Surrogate(bounds, (0.0, 1.0), fields, arguments=arguments, ensemble=(kind, count))


@pytest.mark.parametrize("kind", ["heads", "members"])
@pytest.mark.parametrize("fields", FIELDS)
def test_members_have_an_axis_and_their_mean_is_the_prediction(kind, fields):
    surrogate = make(kind, fields)
    asked = torch.rand(5, 1), torch.rand(5)
    members = surrogate.member_outputs(*asked)
    assert members.shape == (5, 3, *surrogate.output_shape)
    assert torch.equal(surrogate(*asked, standardized=True), members.mean(dim=1))
    assert (members[:, 0] != members[:, 1]).all()


@pytest.mark.parametrize("kind", ["heads", "members"])
def test_files_keep_the_ensemble(kind, tmp_path):
    surrogate = make(kind)
    save(surrogate, tmp_path)
    loaded = load(tmp_path)
    assert loaded.ensemble == (kind, 3)
    point = {"a": 0.3}
    np.testing.assert_array_equal(
        loaded.predict(point, 0.5)["u"], surrogate.predict(point, 0.5)["u"]
    )


def test_heads_share_all_but_the_last_layer():
    one = Surrogate({"a": (0.0, 1.0)}, (0.0, 1.0), FIELDS[0], arguments={"hidden": [8]})

    def size(surrogate):
        return sum(w.numel() for w in surrogate.parameters())

    last = 6 * (8 + 1)
    assert size(make("heads")) == size(one) + 2 * last
    assert size(make("members")) == 3 * size(one)


def test_losses_of_each_member():
    members, target = torch.randn(4, 3, 2, 5), torch.randn(4, 2, 5)
    found = member_losses(members, target)
    for member in range(3):
        expected = per_sample_loss(members[:, member], target)
        torch.testing.assert_close(found[:, member], expected)
    with pytest.raises(ValueError):
        member_losses(members, target[:, :1])


def test_a_probe_sees_the_members_disagree():
    surrogate = make("members")
    points = np.linspace(0, 1, 5)[:, None]
    probe = SurrogateProbe([surrogate], times=1)
    found = probe.features(points)[:, probe.names.index("disagreement")]
    members = surrogate.member_outputs(torch.from_numpy(points), torch.zeros(5)).detach()
    expected = 0.5 * torch.log(members.var(dim=1).mean(dim=1))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


class Convolution(nn.Module):
    """Ends in a convolution."""

    def __init__(self, n_inputs, output_shape):
        super().__init__()
        self.shape = output_shape
        self.first = nn.Linear(n_inputs, 2 * output_shape[0])
        self.last = nn.Conv1d(2, 1, 3, padding=1)

    def forward(self, inputs):
        return self.last(torch.tanh(self.first(inputs)).reshape(len(inputs), 2, -1)).squeeze(1)


class Plain(nn.Module):
    """Ends in a linear layer, which is registered first."""

    def __init__(self, n_inputs, output_shape, bias=True):
        super().__init__()
        self.last = nn.Linear(5, output_shape[0], bias=bias)
        self.first = nn.Linear(n_inputs, 5)

    def forward(self, inputs):
        return self.last(torch.tanh(self.first(inputs)))


@pytest.mark.parametrize("network", [Convolution(2, (6,)), Plain(2, (6,)), Plain(2, (6,), False)])
def test_the_influence_matches_single_gradients(network):
    watched = LastLayer(network, 2)
    inputs, target = torch.randn(5, 2), torch.randn(5, 6)
    factors = torch.tensor([0.1, 0.5, 0.2, 0.3, 0.4])

    def gradient(rows, weights):
        network.zero_grad()
        loss = (per_sample_loss(network(inputs[rows]), target[rows]) * weights).sum()
        loss.backward()
        return torch.cat([w.grad.flatten() for w in network.last.parameters()])

    each = torch.stack([gradient([k], torch.ones(1)) for k in range(5)])
    batch = gradient(list(range(5)), factors)
    found = watched.influence(factors)
    torch.testing.assert_close(found, each.square().sum(dim=1) + 2.0 * each @ batch)

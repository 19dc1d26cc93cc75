"""Features of a prediction: right values on networks whose answers are known, right slopes on others."""

import numpy as np
import pytest
import torch
from torch import nn

from melissa_gen.surrogates import Surrogate, SurrogateProbe


class Known(nn.Module):
    """factor · (a + position + time), in the scaled inputs."""

    def __init__(self, n_inputs, output_shape, factor=1.0):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(float(factor)))
        self.register_buffer("position", torch.linspace(0, 1, output_shape[0]))

    def forward(self, inputs):
        return self.factor * (inputs[:, :1] + inputs[:, -1:] + self.position)


def known(factor):
    here = f"{__file__}:Known"
    bounds, shape = {"a": (0.0, 2.0)}, {"u": (11,)}
    return Surrogate(bounds, (0.0, 4.0), shape, here, {"factor": factor})


def trained_alike(seed):
    torch.manual_seed(seed)
    return Surrogate(
        {"a": (0.0, 1.0), "b": (-1.0, 1.0)},
        (0.0, 1.0),
        {"u": (3, 4), "v": (5,)},
        arguments={"hidden": [8], "activation": "tanh"},
    )


@pytest.fixture(autouse=True)
def generator():
    with torch.random.fork_rng():
        yield


def features(probe, points):
    return dict(zip(probe.names, np.exp(probe.features(points)).T, strict=True))


def test_values_that_can_be_worked_out():
    probe = SurrogateProbe([known(1.0), known(3.0)], times=3)
    found = features(probe, np.array([[1.0], [2.0]]))
    position = np.linspace(0, 1, 11)
    series = np.array([[a + t + position for t in (-1.0, 0.0, 1.0)] for a in (0.0, 1.0)])
    rms = np.sqrt((series**2).mean(axis=(1, 2)))
    np.testing.assert_allclose(found["magnitude"], 3.0 * rms, rtol=1e-5)
    np.testing.assert_allclose(found["disagreement"], np.sqrt(2.0) * rms, rtol=1e-5)
    np.testing.assert_allclose(found["gradient_space"], 3.0 * 0.1 * 11, rtol=1e-5)
    np.testing.assert_allclose(found["gradient_time"], 3.0 * 2.0, rtol=1e-5)


def test_one_member_and_one_time_give_constant_features():
    probe = SurrogateProbe([known(2.0)], times=1)
    found = probe.features(np.array([[0.5], [1.5]]))
    assert np.isfinite(found).all()
    assert np.ptp(found[:, [0, 1, 4]], axis=0).tolist() == [0.0, 0.0, 0.0]


def test_slopes_match_the_features():
    rng = np.random.default_rng(1)
    points = rng.uniform([0, -1], [1, 1], (6, 2))
    probe = SurrogateProbe([trained_alike(seed) for seed in (1, 2, 3)])
    probe = probe.with_seen(rng.uniform([0, -1], [1, 1], (9, 2)))
    found, back = probe.features_and_pullback(points)
    np.testing.assert_array_equal(found, probe.features(points))
    for feature in range(5):
        slope = back(np.eye(5)[[feature] * 6])
        for column in range(2):
            step = 1e-2 * np.eye(2)[column]
            numeric = probe.features(points + step) - probe.features(points - step)
            np.testing.assert_allclose(slope[:, column], numeric[:, feature] / 2e-2, atol=5e-3)


def test_many_points_are_evaluated_in_parts():
    members = [trained_alike(seed) for seed in (1, 2)]
    points = np.random.default_rng(1).random((50, 2))
    whole = SurrogateProbe(members).features(points)
    in_parts = SurrogateProbe(members, values=1000)
    np.testing.assert_allclose(in_parts.features(points), whole, rtol=1e-5)
    assert in_parts.features(points[:0]).shape == (0, 5)


def test_fields_without_axes_have_no_gradient_in_space():
    scalars = Surrogate({"a": (0.0, 1.0)}, (0.0, 1.0), {"u": (), "v": ()})
    found = SurrogateProbe([scalars]).features(np.array([[0.1], [0.9]]))
    assert found[0, 3] == found[1, 3] and found[0, 2] != found[1, 2]


def test_novelty_is_the_leverage_among_earlier_predictions():
    surrogate = trained_alike(4)
    rng = np.random.default_rng(2)
    seen, asked = rng.uniform([0, -1], [1, 1], (7, 2)), rng.uniform([0, -1], [1, 1], (5, 2))
    found = features(SurrogateProbe([surrogate], times=2, seen=seen), asked)["novelty"]

    def rows(points):
        twice = torch.from_numpy(np.repeat(points, 2, axis=0))
        with torch.no_grad():
            output = surrogate(
                twice, torch.tensor([0.0, 1.0]).repeat(len(points)), standardized=True
            )
        return np.concatenate([output.numpy(), np.ones((len(output), 1))], axis=1).astype(float)

    inverse = np.linalg.inv(rows(seen).T @ rows(seen) + 0.1 * np.eye(18))
    leverage = np.einsum("ni,ij,nj->n", rows(asked), inverse, rows(asked)).reshape(5, 2)
    np.testing.assert_allclose(found, np.sqrt(leverage.mean(axis=1)), rtol=1e-3)


def test_trained_points_are_not_novel():
    points = np.random.default_rng(3).uniform([0, -1], [1, 1], (2, 2))
    before = SurrogateProbe([trained_alike(5)], seen=points[:1])
    after = before.with_seen(points)
    fallen = features(before, points)["novelty"] / features(after, points)["novelty"]
    assert fallen[1] > 2.0 * fallen[0] >= 2.0


def test_novelty_of_large_fields_uses_a_projection():
    torch.manual_seed(6)
    shape = {"u": (20, 30)}
    large = Surrogate({"a": (0, 1), "b": (0, 1)}, (0, 1), shape, arguments={"hidden": [16, 16]})
    rng = np.random.default_rng(4)
    near = rng.uniform(0.0, 0.3, (40, 2))
    probe = SurrogateProbe([large], seen=near)
    inside, outside = (
        features(probe, 0.3 * rng.random((50, 2))),
        features(probe, 0.7 + 0.3 * rng.random((50, 2))),
    )
    assert np.median(outside["novelty"]) > 2.0 * np.median(inside["novelty"])


def rows_evaluated(surrogate, ask):
    """Number of rows for which the network is evaluated."""
    rows = []
    network = surrogate.network
    handle = network.register_forward_hook(lambda module, given, found: rows.append(len(given[0])))
    ask()
    handle.remove()
    return sum(rows)


def test_of_a_costly_network_few_seen_points_are_evaluated():
    surrogate, rng = known(1.0), np.random.default_rng(7)
    seen = rng.uniform(0.0, 1.0, (1000, 1))
    probe = SurrogateProbe([surrogate])
    assert probe.costly and not SurrogateProbe([trained_alike(1)]).costly
    assert rows_evaluated(surrogate, lambda: probe.with_seen(seen)) == 2 * 256
    # The number of points counts as if all were evaluated: the leverage of a constant is 1 / (2 n).
    few, many = (features(probe.with_seen(points), seen[:5]) for points in (seen[:250], seen))
    np.testing.assert_allclose(few["novelty"] / many["novelty"], 2.0, rtol=0.15)


def test_fields_are_predicted_some_rows_at_once_with_the_same_values():
    surrogate, points = trained_alike(0), np.random.default_rng(0).random((5, 2))
    whole, parts = (
        SurrogateProbe([surrogate], values=values, keep_fields=True) for values in (10_000, 40)
    )
    fields = whole.fields(points)
    assert {name: array.shape for name, array in fields.items()} == {
        "u": (5, 3, 3, 4),
        "v": (5, 3, 5),
    }
    assert sum(array[0].nbytes for array in fields.values()) == whole.field_bytes
    for name, array in parts.fields(points).items():
        np.testing.assert_allclose(array, fields[name], rtol=1e-5, atol=1e-6)

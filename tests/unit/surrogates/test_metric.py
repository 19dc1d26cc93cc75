"""The metric: one definition of the error, for samples and for whole simulations."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melissa_gen.surrogates import FieldScale, Metric, Surrogate, SurrogateProbe, nrmse
from melissa_gen.surrogates.metric import Usual
from melissa_gen.surrogates.training_loss import TrainingLoss

FIELDS = {"u": (2, 5), "p": (5,)}
SQUARES = {"absolute": "mse", "relative": "relative"}


def surrogate_of(scales):
    surrogate = Surrogate({"a": (0.0, 1.0)}, (0.0, 1.0), FIELDS, scales=scales)
    widths = {"u": [2.0, 0.5], "p": 3.0}
    surrogate.set_output_statistics({"u": [1.0, 4.0], "p": 2.0}, widths)
    return surrogate, {name: torch.tensor(width).reshape(-1) for name, width in widths.items()}


@pytest.mark.parametrize("kind", ["absolute", "relative"])
@pytest.mark.parametrize("scale", ["standard", "log"])
@given(
    seed=st.integers(0, 1000),
    weights=st.sampled_from([{}, {"p": 4.0}, {"u": [3.0, 0.5], "p": 0.1}]),
)
def test_the_square_of_the_error_of_one_step_is_the_loss_of_a_sample(kind, scale, seed, weights):
    scales = {"u": FieldScale(channels="first"), "p": FieldScale(scale)}
    surrogate, widths = surrogate_of(scales)
    metric = Metric(kind, surrogate.fields, surrogate.scales, weights)
    random = np.random.default_rng(seed)
    true, predicted = (
        {n: torch.from_numpy(random.lognormal(size=(3, *s))) for n, s in FIELDS.items()}
        for _ in range(2)
    )
    parts = sum(
        metric.part(
            name,
            metric.of_field(name, predicted[name], true[name], Usual(0.0, 0.0, widths[name])),
            2,
        )
        for name in FIELDS
    )
    loss = TrainingLoss(surrogate, SQUARES[kind], weights)
    samples = loss(surrogate.target(predicted), surrogate.target(true))
    # The loss compares a field that is nearly zero with a share of its usual magnitude.
    big = torch.stack([one.flatten(1).square().mean(dim=1) for one in true.values()]).amin(0) > 0.5
    np.testing.assert_allclose(metric.total(parts).square()[big], samples[big], rtol=1e-4)


def test_without_a_metric_the_error_is_the_nrmse_and_the_mean_over_the_fields():
    true, predicted = torch.rand(2, 4, 3) + 1, torch.rand(2, 4, 3)
    metric, usual = Metric(), Usual(1.0, 1.5, torch.ones(1))
    found = metric.of_field("u", predicted, true, usual)
    torch.testing.assert_close(found, nrmse(predicted, true, 1.5), rtol=0, atol=0)
    total = metric.total(metric.part("u", found, 2) + metric.part("v", 3 * found, 2))
    torch.testing.assert_close(total, 2 * found)


def test_a_relative_error_of_one_field_is_the_nrmse():
    true, predicted = torch.rand(2, 4, 3) + 1, torch.rand(2, 4, 3)
    metric, usual = Metric("relative", {"u": (3,)}), Usual(1.0, 1.5, torch.ones(1))
    found = metric.of_field("u", predicted, true, usual)
    torch.testing.assert_close(found, nrmse(predicted, true, 1.5))


def test_the_features_of_a_sampler_are_relative_to_the_magnitude_where_errors_are():
    """Two points whose predictions differ by a factor: their novelty does, and their relative novelty does not."""
    surrogate = Surrogate({"a": (-1.0, 1.0)}, (0.0, 1.0), {"u": (3,)}, arguments={"hidden": []})
    surrogate.set_output_statistics({"u": 0.0}, {"u": 1.0})
    with torch.no_grad():
        surrogate.network.head.weight[:] = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]])
        surrogate.network.head.bias[:] = torch.zeros(3)
    seen, points = np.array([[-0.9], [0.6]]), np.array([[0.5], [1.0]])
    novelty = {}
    for relative in (False, True):
        probe = SurrogateProbe([surrogate], seen=seen, relative=relative)
        features = dict(zip(probe.names, probe.features(points).T, strict=True))
        novelty[relative] = np.exp(features["novelty"])
        assert np.exp(features["magnitude"]) == pytest.approx([0.5 * 2**0.5, 2**0.5], rel=1e-3)
    assert novelty[False][1] > novelty[False][0]
    assert novelty[True][1] < novelty[True][0]

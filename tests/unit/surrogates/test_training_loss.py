"""The losses that training can minimize."""

import math

import pytest
import torch

from melissa_gen.errors import StudyError
from melissa_gen.surrogates import FieldScale, Surrogate, per_sample_loss
from melissa_gen.surrogates.training_loss import TrainingLoss

POINTS = 32
GRID = 2 * math.pi * torch.arange(POINTS) / POINTS


def surrogate_of(fields=None, scales=None, ensemble=None):
    fields = fields or {"u": (POINTS,)}
    made = Surrogate(
        {"a": (0.0, 1.0)},
        (0.0, 1.0),
        fields,
        arguments={"hidden": [4]},
        scales=scales,
        ensemble=ensemble,
    )
    made.set_output_statistics(dict.fromkeys(fields, 3.0), dict.fromkeys(fields, 2.0))
    return made


def test_the_default_is_the_mean_squared_error_on_the_scale_of_the_fields():
    output, target = torch.randn(5, POINTS), torch.randn(5, POINTS)
    loss = TrainingLoss(surrogate_of())
    torch.testing.assert_close(loss(output, target), per_sample_loss(output, target))


def test_the_relative_loss_weights_small_and_large_fields_equally():
    surrogate = surrogate_of()
    loss = TrainingLoss(surrogate, "relative")
    true = torch.stack([torch.full((POINTS,), 1000.0), torch.full((POINTS,), 2.0)])
    target, output = (surrogate.target({"u": values}) for values in (true, true * 1.1))
    torch.testing.assert_close(loss(output, target), torch.full((2,), 0.01), rtol=1e-3, atol=0)


def test_the_relative_loss_of_a_field_that_is_zero_is_finite():
    surrogate = surrogate_of()
    zero = surrogate.target({"u": torch.zeros(1, POINTS)})
    loss = TrainingLoss(surrogate, "relative")(surrogate.target({"u": torch.ones(1, POINTS)}), zero)
    # It is compared with a tenth of the usual magnitude, whose square is 3² + 2².
    torch.testing.assert_close(loss, torch.tensor([1 / 0.13]))


def test_the_relative_loss_does_not_depend_on_the_scale():
    surrogate = surrogate_of()
    true, predicted = 5 + torch.randn(4, POINTS), 5 + torch.randn(4, POINTS)
    found = []
    for width in (2.0, 7.0):
        surrogate.set_output_statistics({"u": 1.0}, {"u": width})
        output, target = (surrogate.target({"u": one}) for one in (predicted, true))
        found.append(TrainingLoss(surrogate, "relative")(output, target))
    torch.testing.assert_close(*found)


def test_the_relative_loss_on_a_log_scale_compares_logarithms():
    surrogate = surrogate_of(scales={"u": FieldScale("log")})
    true = torch.full((1, POINTS), 0.01)
    target, output = (surrogate.target({"u": values}) for values in (true, true * math.e))
    torch.testing.assert_close(TrainingLoss(surrogate, "relative")(output, target), torch.ones(1))


@pytest.mark.parametrize(("error", "expected"), [(0.5, 0.125), (3.0, 2.5)])
def test_the_huber_loss_grows_linearly_for_large_errors(error, expected):
    target = torch.zeros(1, POINTS)
    found = TrainingLoss(surrogate_of(), "huber")(target + error, target)
    torch.testing.assert_close(found, torch.tensor([expected]))


def test_the_h1_loss_counts_derivatives():
    target = torch.zeros(1, POINTS)
    loss = TrainingLoss(surrogate_of(), "h1")
    for wavenumber in (1, 2):
        error = torch.sin(wavenumber * GRID)[None]
        expected = (1 + wavenumber**2) / 2
        assert loss(error, target).item() == pytest.approx(expected, rel=0.08)


def test_the_h1_loss_takes_no_differences_between_channels():
    fields = {"u": (2, POINTS)}
    target = torch.zeros(1, 2, POINTS)
    output = torch.tensor([1.0, -1.0])[None, :, None].expand(1, 2, POINTS)
    by_channel = surrogate_of(fields, {"u": FieldScale(channels="first")})
    by_channel.set_output_statistics({"u": [0.0, 0.0]}, {"u": [1.0, 1.0]})
    assert TrainingLoss(by_channel, "h1")(output, target).item() == pytest.approx(1.0)
    assert TrainingLoss(surrogate_of(fields), "h1")(output, target).item() > 1.1


@pytest.mark.parametrize("kind", ["mse", "relative", "huber", "h1"])
def test_weights_of_fields_and_channels_change_their_part_of_the_loss(kind):
    fields = {"u": (2, 8), "p": (8,)}
    surrogate = surrogate_of(fields, {"u": FieldScale(channels="first")})
    surrogate.set_output_statistics({"u": [0.0, 0.0], "p": 0.0}, {"u": [1.0, 1.0], "p": 1.0})
    target = torch.ones(1, 24)
    equal = TrainingLoss(surrogate, kind)
    weighted = TrainingLoss(surrogate, kind, {"u": [3.0, 1.0], "p": 0.5})
    for part, share in ((slice(0, 8), 3.0), (slice(8, 16), 1.0), (slice(16, 24), 0.5)):
        output = target.clone()
        output[0, part] += 0.1
        ratio = weighted(output, target).item() / equal(output, target).item()
        assert ratio == pytest.approx(share * 3 / 4.5, rel=1e-4)


@pytest.mark.parametrize("kind", ["mse", "relative"])
def test_each_member_of_an_ensemble_has_the_loss_that_it_would_have_alone(kind):
    surrogate = surrogate_of(ensemble=("heads", 3))
    members, target = torch.randn(4, 3, POINTS), torch.randn(4, POINTS)
    loss = TrainingLoss(surrogate, kind)
    found = loss.of_members(members, target)
    assert found.shape == (4, 3)
    for member in range(3):
        torch.testing.assert_close(found[:, member], loss(members[:, member], target))


@pytest.mark.parametrize("reduced", [False, True])
def test_a_function_of_the_user_returns_one_loss_for_each_sample_or_value(reduced):
    def absolute(output, target):
        error = (output - target).abs()
        return error.mean(dim=1) if reduced else error

    target = torch.zeros(3, POINTS)
    found = TrainingLoss(surrogate_of(), absolute)(target + 0.5, target)
    torch.testing.assert_close(found, torch.full((3,), 0.5))


def test_a_function_that_returns_one_number_is_refused():
    loss = TrainingLoss(surrogate_of(), torch.nn.MSELoss(), name="'torch.nn.MSELoss'")
    with pytest.raises(StudyError, match=r"returned \(\) for \(3, 32\).*reduction: none"):
        loss(torch.ones(3, POINTS), torch.zeros(3, POINTS))


def test_a_changed_scale_changes_only_the_last_layers_gradients_of_the_relative_loss():
    surrogate = surrogate_of()
    inputs = (torch.rand(6, 1), torch.rand(6))
    true = {"u": 4 + torch.randn(6, POINTS)}
    loss = TrainingLoss(surrogate, "relative")

    def gradients():
        surrogate.zero_grad()
        value = loss(surrogate(*inputs, standardized=True), surrogate.target(true)).mean()
        value.backward()
        return value.item(), {p: p.grad.clone() for p in surrogate.parameters()}

    value, before = gradients()
    rescaling = loss.adapt(
        surrogate.rescale_output(
            surrogate.output_mean.numpy() + 1, surrogate.output_std.numpy() * 4
        )
    )
    after_value, after = gradients()
    assert after_value == pytest.approx(value * rescaling.loss_factor, rel=1e-4)
    for parameter, gradient in before.items():
        factor = rescaling.factors.get(parameter, rescaling.loss_factor)
        torch.testing.assert_close(after[parameter], gradient * factor, rtol=1e-3, atol=1e-5)

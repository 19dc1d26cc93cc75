import numpy as np
import pytest
import torch
from torch import nn

from melissa_gen.errors import DataError, StudyError
from melissa_gen.surrogates import MLP, Surrogate, per_sample_loss

PARAMETERS = {"a": (100.0, 500.0), "b": (0.0, 1.0)}


def make(fields, **options):
    return Surrogate(PARAMETERS, (0.0, 2.0), fields, **options)


def test_the_published_heat_network():
    network = MLP(6, (100, 100))
    widths = [(m.in_features, m.out_features) for m in network.layers if isinstance(m, nn.Linear)]
    assert widths == [(6, 256), (256, 256), (256, 10_000)]
    assert network(torch.zeros(3, 6)).shape == (3, 100, 100)


@pytest.mark.parametrize(
    ("fields", "output_shape"),
    [
        ({"u": (4, 3)}, (4, 3)),
        ({"u": (4, 3), "v": (4, 3)}, (2, 4, 3)),
        ({"u": (4,), "v": (2, 3), "w": ()}, (11,)),
        ({"u": ()}, ()),
        ({"u": (), "v": ()}, (2,)),
    ],
)
def test_targets_and_outputs_have_one_layout(fields, output_shape):
    """The network is replaced by the known target: the physical result must be exact."""
    surrogate = make(fields)
    assert surrogate.output_shape == output_shape
    data = {name: torch.randn(5, *shape) * 3 + 7 for name, shape in fields.items()}
    surrogate.set_output_statistics(dict.fromkeys(fields, 7.0), dict.fromkeys(fields, 3.0))
    target = surrogate.target(data)
    assert target.shape == (5, *output_shape)

    class Oracle(nn.Module):
        def forward(self, inputs):
            return target

    surrogate.network = Oracle()
    answer = surrogate(torch.zeros(5, 2), torch.zeros(5))
    if len(fields) == 1:
        answer = {next(iter(fields)): answer}
    for name, values in data.items():
        torch.testing.assert_close(answer[name], values)
    output = surrogate(torch.zeros(5, 2), torch.zeros(5), standardized=True)
    assert per_sample_loss(output, target).tolist() == [0] * 5


def test_inputs_reach_the_network_in_minus_one_to_one():
    surrogate = make({"u": (4,)})
    seen = []
    surrogate.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    surrogate(torch.tensor([[100.0, 0], [500, 1], [300, 0.5]]), torch.tensor([0.0, 2, 1]))
    assert seen[0].tolist() == [[-1, -1, -1], [1, 1, 1], [0, 0, 0]]
    assert seen[0].dtype == torch.float32


def test_a_parameter_that_never_varies_is_legal():
    surrogate = Surrogate({"a": (3.0, 3.0)}, (0, 0), {"u": (2,)})
    assert np.isfinite(surrogate.predict({"a": 3.0}, 0.0)["u"]).all()


def test_a_constant_field_is_only_centred():
    surrogate = make({"u": (4,)})
    surrogate.set_output_statistics({"u": 300.0}, {"u": 0.0})
    assert surrogate.target({"u": torch.full((2, 4), 300.0)}).abs().max() == 0


@pytest.mark.parametrize(
    ("mean", "std"), [({}, {}), ({"u": 1}, {"u": -1}), ({"u": np.nan}, {"u": 1})]
)
def test_impossible_statistics_are_refused(mean, std):
    with pytest.raises(DataError, match="field 'u'"):
        make({"u": (4,)}).set_output_statistics(mean, std)


def test_predict_accepts_numbers_and_arrays():
    surrogate = make({"u": (4, 3), "v": (4, 3)}).train()
    one = surrogate.predict({"b": 0.25, "a": 200}, time=1.5)
    assert one["v"].shape == (4, 3)
    many = surrogate.predict({"a": 200, "b": 0.25}, time=np.array([0.5, 1.5]))
    assert many["u"].shape == (2, 4, 3)
    np.testing.assert_allclose(many["u"][1], one["u"], rtol=1e-5, atol=1e-6)
    assert surrogate.training
    with pytest.raises(DataError, match=r"no parameter 'aa' \(did you mean 'a'\?\)"):
        surrogate.predict({"aa": 1, "b": 2}, 0)
    with pytest.raises(DataError, match="also needs a value of b"):
        surrogate.predict({"a": 1}, 0)


def test_it_learns_a_small_problem():
    surrogate = make({"u": (8,)}, arguments={"hidden": [32, 32], "activation": "silu"})
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(128, 2, generator=generator) * torch.tensor([400.0, 1.0]) + torch.tensor(
        [100.0, 0]
    )
    t = torch.rand(128, generator=generator) * 2
    u = x[:, :1] * torch.linspace(0, 1, 8) + 100 * (x[:, 1:] + t[:, None])
    surrogate.set_output_statistics({"u": float(u.mean())}, {"u": float(u.std())})
    optimizer = torch.optim.Adam(surrogate.parameters(), 1e-2)
    target = surrogate.target({"u": u})
    for _ in range(150):
        optimizer.zero_grad()
        loss = per_sample_loss(surrogate(x, t, standardized=True), target).mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.02


class WrongShape(nn.Module):
    def __init__(self, n_inputs, output_shape):
        super().__init__()

    def forward(self, inputs):
        return inputs


def test_a_wrong_output_shape_is_found_at_once():
    with pytest.raises(StudyError, match=r"returned \(2, 3\).*must be \(2, 4\)"):
        make({"u": (4,)}, class_path=f"{__file__}:WrongShape")


class OtherArguments(torch.nn.Module):
    """Has not the arguments of a network."""

    def __init__(self, inputs, output_shape):
        super().__init__()


def test_a_missing_argument_has_no_hint_to_itself():
    with pytest.raises(StudyError, match=r"missing a required argument: 'inputs'") as error:
        make({"u": (4,)}, class_path=f"{__file__}:OtherArguments")
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"hiden": [3]}, r"did you mean 'hidden'"),
        ({"activation": "rellu"}, r"did you mean 'relu'"),
        ({"hidden": [0]}, r"legal is a list of widths"),
        ({"hidden": 3}, r"can't be created from surrogate.arguments"),
    ],
)
def test_wrong_arguments_are_explained(arguments, sentence):
    with pytest.raises(StudyError, match=sentence):
        make({"u": (4,)}, arguments=arguments)

import pytest
import torch

from melissa_gen.surrogates import nrmse, per_sample_loss
from melissa_gen.surrogates.losses import steps_correlated


def test_per_sample_loss_is_one_number_each():
    output = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]])
    assert per_sample_loss(output, torch.zeros(2, 1, 2)).tolist() == [2.5, 0.0]
    assert per_sample_loss(output.bfloat16(), torch.zeros(2, 1, 2)).dtype == torch.float32


def test_nrmse_is_relative_to_each_simulation():
    true = torch.ones(3, 5, 4, 4) * torch.tensor([1.0, 10.0, 100.0])[:, None, None, None]
    torch.testing.assert_close(
        nrmse(true * 1.1, true), torch.full((3,), 0.1).double(), atol=1e-6, rtol=0
    )
    assert nrmse(torch.full((1, 4), 0.5), torch.zeros(1, 4)).tolist() == [0.5]
    with pytest.raises(ValueError, match="differ"):
        nrmse(torch.zeros(2, 3), torch.zeros(2, 1))


@pytest.mark.parametrize("cells", [8, 100_000])
def test_correlation_is_counted_to_the_first_step_that_loses_it(cells):
    true = torch.randn(12, cells)
    assert steps_correlated(2.0 * true + 1.0, true) == 12
    for wrong in (-true[7], torch.zeros(cells), torch.full((cells,), torch.nan)):
        predicted = true.clone()
        predicted[7] = wrong
        assert steps_correlated(predicted, true) == 7
    constant = torch.full_like(true, 3.0)
    assert steps_correlated(constant, constant) == 12 and steps_correlated(true, constant) == 0

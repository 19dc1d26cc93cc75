import pytest
import torch

from melissa_gen.surrogates import nrmse, per_sample_loss


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

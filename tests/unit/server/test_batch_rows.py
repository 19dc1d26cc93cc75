"""Ranks with less data than others: short batches, no more data, or none at all, with a batch normalization."""

import pytest
import torch

from tests.unit.server.trainers import generator, study_of, trainer_of, world

__all__ = ["generator", "world"]

NETWORK = """
import math
from torch import nn

class Net(nn.Sequential):
    def __init__(self, n_inputs, output_shape):
        super().__init__(
            nn.Linear(n_inputs, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, math.prod(output_shape))
        )
"""


@pytest.fixture
def trainer(tmp_path):
    (tmp_path / "net.py").write_text(NETWORK)
    study = study_of(surrogate={"class": f"{tmp_path / 'net.py'}:Net"})
    trainer, _ = trainer_of(study)
    return trainer


def buffers(trainer):
    return {name: buffer.clone() for name, buffer in trainer.surrogate.network.named_buffers()}


def test_one_row_is_a_batch(trainer):
    batch = trainer.draw(1)
    assert len(trainer.learn(batch, 1)) == 1
    assert trainer.rows.filled == 2


def test_a_short_batch_is_filled_with_rows_of_weight_0(trainer):
    """The rows change the statistics of the batch and nothing else: targets of them do not enter the gradient."""
    trainer.draw(8)
    batch = trainer.draw(1)
    found = []
    for _ in range(2):
        before = {k: v.clone() for k, v in trainer.surrogate.state_dict().items()}
        assert len(trainer.learn(batch, 1)) == 1
        found.append([w.grad.clone() for w in trainer.surrogate.parameters()])
        trainer.surrogate.load_state_dict(before)
        for rows in trainer.rows.fields.values():
            rows[1:] = 1e3
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_a_rank_whose_data_has_ended_runs_on_real_rows(trainer):
    trainer.draw(8)
    trainer.learn(None, 8)
    assert all((w.grad == 0).all() for w in trainer.surrogate.parameters())
    inputs = trainer.surrogate.scale(
        torch.from_numpy(trainer.rows.inputs[:, :-1]), torch.from_numpy(trainer.rows.inputs[:, -1])
    )
    mean = trainer.surrogate.network[0](inputs).mean(dim=0)
    torch.testing.assert_close(trainer.surrogate.network[1].running_mean, 0.1 * mean)


def test_a_rank_that_never_had_data_changes_no_running_mean(trainer):
    before = buffers(trainer)
    trainer.learn(None, 8)
    assert all((w.grad == 0).all() for w in trainer.surrogate.parameters())
    assert all(
        torch.equal(old, new)
        for old, new in zip(before.values(), buffers(trainer).values(), strict=True)
    )
    assert trainer.surrogate.network.training

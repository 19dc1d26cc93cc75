"""The network of the studies in one dimension."""

import math

import pytest
import torch


@pytest.fixture(scope="module")
def network(load):
    return load("burgers", "network").network


def test_a_shifted_initial_state_gives_a_shifted_answer(network):
    torch.manual_seed(0)
    net = network.WaveNetwork(6, (32,), first=1, waves=2, width=8, modes=8, layers=2)
    inputs = torch.rand(3, 6) * 2.0 - 1.0
    shifted = inputs.clone()
    # Phases are scaled from [0, 2 pi] to [-1, 1].
    for number, column in ((1, 2), (2, 4)):
        phase = math.pi * (1.0 + inputs[:, column]) - 2.0 * math.pi * number * 5 / 32
        shifted[:, column] = phase / math.pi - 1.0
    torch.testing.assert_close(net(shifted), net(inputs).roll(5, 1), atol=1e-4, rtol=1e-3)


def test_all_parameters_have_gradients(network):
    net = network.WaveNetwork(5, (16,), waves=2, width=4, modes=8, layers=2)
    net(torch.rand(2, 5)).square().mean().backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in net.parameters())

"""Seeding, and acquisitions whose target density is known."""

import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from melissa_gen.sampling.acquisition.base_acquisition import Acquisition


@pytest.fixture(autouse=True)
def global_random_state_untouched():
    """No code under test may change the global generators, and no test leaves them changed."""
    of_torch = torch.get_rng_state()
    ours, plain = np.random.get_state(), random.getstate()
    np.random.seed(1234)
    random.seed(1234)
    seeded = np.random.get_state(), random.getstate()
    yield
    now = np.random.get_state(), random.getstate()
    np.random.set_state(ours)
    random.setstate(plain)
    assert (now[0][1] == seeded[0][1]).all() and now[0][2:] == seeded[0][2:]
    assert now[1] == seeded[1]
    assert torch.equal(torch.get_rng_state(), of_torch)


@pytest.fixture
def rng():
    return np.random.default_rng(20240607)


@dataclass(frozen=True)
class Bump(Acquisition):
    """log a of a normal with the same center and width on each axis."""

    center: float
    width: float

    def value(self, unit):
        return -0.5 * ((unit - self.center) ** 2).sum(axis=1) / self.width**2

    def value_and_gradient(self, unit):
        return self.value(unit), -(unit - self.center) / self.width**2


@dataclass(frozen=True)
class TwoBumps(Acquisition):
    """Two separated modes on the diagonal, of equal weight."""

    low: float = 0.2
    high: float = 0.8
    width: float = 0.07

    def value_and_gradient(self, unit):
        values, gradients = zip(
            *(Bump(c, self.width).value_and_gradient(unit) for c in (self.low, self.high)),
            strict=True,
        )
        total = np.logaddexp(*values)
        share = np.exp(np.stack(values) - total)[:, :, None]
        return total, (share * np.stack(gradients)).sum(axis=0)


class Flat(Acquisition):
    """No difference between points."""

    def value_and_gradient(self, unit):
        return np.zeros(len(unit)), np.zeros_like(unit)


@dataclass(frozen=True)
class Linear(Acquisition):
    """log a = slope · Σ u."""

    slope: float

    def value(self, unit):
        return self.slope * unit.sum(axis=1)

    def value_and_gradient(self, unit):
        return self.value(unit), np.full_like(unit, self.slope)


@pytest.fixture
def acquisitions():
    """The classes, for tests that build their own."""
    return {"bump": Bump, "two": TwoBumps, "flat": Flat, "linear": Linear}

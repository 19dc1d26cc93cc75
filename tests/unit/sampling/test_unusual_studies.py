"""The default sampler in unusual studies: constant outputs, one record, networks of NaN, and ten thousand records."""

import numpy as np
import pytest
import torch

from melissa_gen.errors import DataError
from melissa_gen.sampling import Evidence, Prior, create, split_state
from melissa_gen.surrogates import Surrogate, SurrogateProbe

SQUARE = Prior.from_mapping({name: {"low": 0.0, "high": 1.0} for name in "ab"})


def probe_of(value):
    """A probe of a network whose output is the same everywhere."""
    with torch.random.fork_rng():
        surrogate = Surrogate(
            {name: (0.0, 1.0) for name in "ab"}, (0, 1), {"u": (4,)}, arguments={"hidden": [8]}
        )
    surrogate.set_output_statistics({"u": 0.0}, {"u": 1.0})
    weights = list(surrogate.parameters())
    for weight in weights:
        weight.data.zero_()
    weights[-1].data.fill_(value)
    return SurrogateProbe([surrogate.eval()])


def evidence(points, first=0, difficulty=1.0):
    return [Evidence(first + k, point, difficulty) for k, point in enumerate(points)]


@pytest.mark.parametrize("records", [1, 20])
@pytest.mark.parametrize("gate", [True, False])
def test_constant_outputs_and_difficulties_leave_the_points_of_sobol(records, gate):
    sampler = create("adaptive", SQUARE, 3, arguments={"gate": gate})
    sobol = create("sobol", SQUARE, 3)
    points = sampler.suggest(records).points
    np.testing.assert_array_equal(points, sobol.suggest(records).points)
    for _ in range(3):
        sampler.observe(probe_of(0.5))
        sampler.ingest(evidence(points))
        found = sampler.suggest(8)
        np.testing.assert_array_equal(found.points, sobol.suggest(8).points)
        assert np.isfinite(found.log_density).all()


def test_a_network_of_nan_is_named_and_the_sampler_continues_from_its_state():
    sampler = create("adaptive", SQUARE, 3)
    points = sampler.suggest(10).points
    state = sampler.state()
    with pytest.raises(DataError, match="predicts NaN or infinite values"):
        sampler.observe(probe_of(float("nan")))
    sampler.restore(state)
    sampler.observe(probe_of(0.5))
    sampler.ingest(evidence(points))
    assert np.isfinite(sampler.suggest(10).points).all()


def test_ten_thousand_records_take_no_more_memory_than_five_thousand():
    sampler, rng = (
        create("adaptive", SQUARE, 3, arguments={"guide": "difficulty"}),
        np.random.default_rng(1),
    )
    sizes = []
    for first in range(0, 10_000, 1000):
        points = sampler.suggest(1000).points
        records = [
            Evidence(first + k, point, float(np.exp(rng.normal() + 2.0 * point[0])))
            for k, point in enumerate(points)
        ]
        sampler.ingest(records)
        _, arrays = split_state(sampler.state())
        sizes.append(sum(array.nbytes for array in arrays.values()))
    assert sizes[-1] <= 1.05 * sizes[4] < 1e6
    assert sampler.diagnostics()["records"] == 1000

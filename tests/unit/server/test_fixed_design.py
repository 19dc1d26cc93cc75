"""Points that are given instead of drawn."""

import pytest

from melissa_gen.sampling import Prior
from melissa_gen.server.coordination.fixed_design import FixedDesign

PRIOR = Prior.from_mapping({"a": {"low": 0.0, "high": 2.0}})


def test_the_density_of_given_points_is_unknown():
    drawn = FixedDesign(PRIOR, 2, seed=1).take()
    assert drawn.log_density == pytest.approx(PRIOR.log_density([list(drawn.parameters)])[0])
    given = FixedDesign(PRIOR, 2, seed=1, given=[[0.5], [1.5]])
    assert [given.take().log_density for _ in range(2)] == [None, None]

"""Sobol indices of the heat equation, which is linear, against the exact ones of `exact_indices.py`."""

import numpy as np
import pytest

from melissa_gen.sampling import Prior, create
from melissa_gen.statistics import FieldResults, SobolIndices, StatisticsResults

MESH, STEPS, GROUPS = 6, 4, 512


@pytest.fixture(scope="module")
def heat(load):
    return load("heat", "solver", "exact_indices").exact_indices


@pytest.fixture(scope="module")
def estimated(heat):
    """The estimates of independent groups."""
    names = heat.PARAMETERS
    prior = Prior.from_mapping({name: {"low": 100.0, "high": 500.0} for name in names})
    sampler = create("pick_freeze", prior, 4, arguments={"base": "random"})
    points = sampler.suggest(GROUPS * (len(names) + 2)).points
    fields = np.einsum("sp,tpij->tsij", points, heat.responses(MESH, STEPS))
    indices = SobolIndices(STEPS, (MESH, MESH), len(names))
    for step in range(STEPS):
        for members in fields[step].reshape(GROUPS, len(names) + 2, MESH, MESH):
            indices.update(step, members)
    return indices.results()


def test_the_indices_are_the_exact_ones(heat, estimated):
    exact = heat.exact_indices(MESH, STEPS)
    np.testing.assert_allclose(exact.sum(axis=1), 1.0)
    for order in ("first_order", "total_order"):
        np.testing.assert_allclose(estimated[order], exact, atol=4 / np.sqrt(GROUPS))
        inside = (estimated[f"{order}_low"] <= exact) & (exact <= estimated[f"{order}_high"])
        assert inside.mean() > 0.9
    # Where a single parameter matters, it has nearly all of the variance.
    walls = (0, 3), (-1, 3), (3, 0), (3, -1)
    for number, (i, j) in enumerate(walls, start=1):
        near = estimated["first_order"][-1, :, i, j]
        assert near.argmax() == number and near[number] > 0.8


def test_the_script_judges_a_run(heat, estimated, tmp_path, capsys):
    def judged(**changed):
        results = FieldResults(estimated | changed, "K", (), (), {})
        times = 0.01 * np.arange(1, STEPS + 1)
        fields = {"temperature": results}
        StatisticsResults(fields, heat.PARAMETERS, times).write(tmp_path / "statistics.h5")
        return heat.main([str(tmp_path)])

    wrong = {name: estimated[name][:, ::-1] for name in estimated if name.startswith("first")}
    assert judged(**wrong) == 1
    capsys.readouterr()
    wide = {
        f"{order}_low": np.full_like(estimated[order], -1.0)
        for order in ("first_order", "total_order")
    }
    wide |= {
        f"{order}_high": np.ones_like(estimated[order]) for order in ("first_order", "total_order")
    }
    assert judged(**wide) == 0
    printed = capsys.readouterr().out
    assert "512 groups, 4 time steps, 6 x 6 points" in printed and "left wall" in printed

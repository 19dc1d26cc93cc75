"""A prior given by a table of points: its draws, its densities, and the methods that do not support it."""

import numpy as np
import pytest

from melissa_gen.errors import StudyError
from melissa_gen.sampling import METHODS, Evidence, Prior, check_arguments, create, read_points

FROM_POINTS = [name for name, entry in METHODS.items() if not entry.needs_density]
BOUNDS = {
    "a": {"distribution": "log_uniform", "low": 0.1, "high": 10.0},
    "b": {"low": -1.0, "high": 1.0},
    "fixed": {"distribution": "fixed", "value": 2.0},
}


def ring(m=300):
    """Points about a circle in (log a, b): correlated, with a hole."""
    rng = np.random.default_rng(3)
    angle, radius = rng.uniform(0, 2 * np.pi, m), rng.uniform(0.75, 0.95, m)
    a, b = 10.0 ** (radius * np.cos(angle)), radius * np.sin(angle)
    return np.column_stack([a, b, np.full(m, 2.0)])


ROWS = ring()
PRIOR = Prior.from_mapping(BOUNDS, points=ROWS)


def radius(points):
    return np.hypot(np.log10(points[:, 0]), points[:, 1])


def are_rows(points):
    return np.array([np.isclose(ROWS, p, rtol=1e-9).all(axis=1).any() for p in points])


def test_draws_are_rows_and_densities_are_relative_to_them(rng):
    points = PRIOR.sample(300, rng)
    assert are_rows(points).all() and len(np.unique(points, axis=0)) == 300
    assert len(PRIOR.sample(0, rng)) == 0 and len(PRIOR.sample(700, rng)) == 700
    assert PRIOR.log_density(points).tolist() == [0.0] * 300
    assert PRIOR.log_density(np.array([[100.0, 0.0, 2.0]]))[0] == -np.inf
    assert PRIOR.tabulated and not Prior.from_mapping(BOUNDS).tabulated


SMALL = {
    "table": {"points": ROWS[:60].tolist()},
    "phased": {"phase": 5, "size": 512},
    "pool": {"size": 512},
    "rad": {"size": 512},
    "rar_d": {"size": 512},
    "diffusion_prior": {"steps": 10, "training_steps": 250, "hidden": 32},
}


@pytest.mark.parametrize("method", FROM_POINTS)
def test_every_point_is_feasible_and_the_hard_ones_are_sought(method):
    sampler = create(method, PRIOR, 5, ramp_simulations=1, arguments=SMALL.get(method))
    for first in (0, 20, 40)[: 1 if method == "diffusion_prior" else 3]:  # which learns slowly
        found = sampler.suggest(20)
        if method != "table":
            assert np.isfinite(found.log_density).all()
        sampler.ingest(
            [
                Evidence(first + i, p, float(np.exp(3.0 * p[1])), log_density=q)
                for i, (p, q) in enumerate(zip(found.points, found.log_density, strict=True))
            ]
        )
    found = sampler.suggest(100)
    adaptive = np.array(found.method) == method
    if method == "diffusion_prior":  # new points, of the region that it has learned
        inside = np.abs(radius(found.points[adaptive]) - 0.85) < 0.25
        assert inside.mean() > 0.7 and not are_rows(found.points[adaptive]).any()
    else:
        assert are_rows(found.points).all()
    if adaptive.any() and method != "table":
        assert found.points[adaptive, 1].mean() > 0.15
        assert found.log_density[adaptive].mean() > 0.0  # denser there than the prior


@pytest.mark.parametrize("method", sorted(set(METHODS) - set(FROM_POINTS)))
def test_the_others_refuse_in_one_sentence(method):
    with pytest.raises(StudyError, match=f"'{method}', which can't be used with feas"):
        create(method, PRIOR, 5)
    check_arguments(method)  # without a table it is legal


def test_files(tmp_path):
    names = list(BOUNDS)
    csv = "\n".join(["note,b,fixed,a", *(f"x,{b!r},{c!r},{a!r}" for a, b, c in ROWS.tolist())])
    (tmp_path / "p.csv").write_text(csv)
    np.save(tmp_path / "p.npy", ROWS)
    np.savez(tmp_path / "p.npz", points=ROWS)
    for kind in ("csv", "npy", "npz"):
        found = read_points(str(tmp_path / f"p.{kind}"), names, "feasible_points")
        np.testing.assert_array_equal(found, ROWS)
    with pytest.raises(StudyError, match=r"feasible_points: .* has shape \(300, 3\); \(n, 2\)"):
        read_points(str(tmp_path / "p.npy"), names[:2], "feasible_points")
    with pytest.raises(StudyError, match=r"feasible_points is 'p\.txt'"):
        read_points("p.txt", names, "feasible_points")


def test_illegal_rows_are_named():
    wrong = np.vstack([ROWS[:3], [[20.0, 0.0, 2.0]]])
    with pytest.raises(StudyError, match=r"feasible_points row 4 \(a 20, b 0, fixed 2\) is out"):
        Prior.from_mapping(BOUNDS, points=wrong)
    with pytest.raises(StudyError, match=r"feasible_points row .* constraints"):
        Prior.from_mapping(BOUNDS, ["b > 0"], points=ROWS)
    with pytest.raises(StudyError, match="feasible_points has no rows"):
        Prior.from_mapping(BOUNDS, points=ROWS[:0])

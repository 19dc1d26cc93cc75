"""The benchmark that compares samplers: its command, its solvers and its statistics."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds the folder of the benchmarks to the path, as for a script in it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_a_quick_comparison_has_results_of_every_method(tmp_path):
    found = tmp_path / "samplers.json"
    command = [sys.executable, BENCHMARKS / "samplers.py", "--quick", "--json", found]
    subprocess.run(command, check=True, capture_output=True, timeout=280)
    details = json.loads(found.read_text())["details"]
    assert set(details["ratio"]) == {
        *("uniform", "uniform_resampled", "sobol", "pool", "diffusion_posterior", "oracle")
    }
    for ratios in (details["ratio"], details["relative_ratio"]):
        assert ratios["uniform"]["max"][0] == 1.0
    for errors in details["errors"].values():
        assert len(errors) == 2
        assert all(0.0 < row["mean"] < row["p99"] <= row["max"] for row in errors)
        assert all(0.0 < row["median"] < row["p95"] for row in errors)


@pytest.mark.usefixtures("benchmarks")
def test_burgers_agrees_with_the_cole_hopf_solution():
    from sampler_problems import burgers

    viscosity, points = 0.02, 64
    fields = burgers(np.array([[viscosity, 0.8, 0.3, 1.0]]))[0]
    # u = Σ (x - y)/t w / Σ w with w = exp(-[U(y) + (x - y)²/2t] / 2ν), U' = u(·, 0)
    y = np.linspace(-2.0, 3.0, 20001)
    potential = -0.8 * np.cos(2 * np.pi * y) / (2 * np.pi)
    potential -= 0.3 * np.cos(4 * np.pi * y + 1.0) / (4 * np.pi)
    x = np.arange(points)[:, None] / points
    for index, time in ((3, 0.1), (19, 0.5)):
        exponent = -(potential + (x - y) ** 2 / (2 * time)) / (2 * viscosity)
        weight = np.exp(exponent - exponent.max(axis=1, keepdims=True))
        exact = (weight * (x - y) / time).sum(axis=1) / weight.sum(axis=1)
        np.testing.assert_allclose(fields[index], exact, atol=1e-5)


@pytest.mark.usefixtures("benchmarks")
def test_burgers_is_resolved_at_the_lowest_viscosity():
    from sampler_problems import Resolution, burgers

    point, usual = np.array([[0.004, 1.0, 1.0, 0.5]]), Resolution()
    coarse = burgers(point, usual)
    finer = Resolution(4 * usual.cells, usual.step / 4, 4 * usual.steps_between)
    fine = burgers(point, finer)[:, :, ::4]
    assert np.sqrt(np.mean((coarse - fine) ** 2)) < 0.01 * fine.std()


@pytest.mark.usefixtures("benchmarks")
def test_heat_superposition_is_the_solver_of_the_example():
    from sampler_problems import heat

    one = np.full((1, 5), 250.0)
    np.testing.assert_allclose(heat(one), 250.0, rtol=1e-5)
    steep = heat(np.array([[300.0, 100.0, 100.0, 100.0, 500.0]]))
    assert steep.min() >= 100.0 - 1e-3
    assert steep.max() <= 500.0 + 1e-3


@pytest.mark.usefixtures("benchmarks")
def test_ratio_is_the_geometric_mean_and_its_interval_holds_it():
    from samplers import ratio_with_interval

    ratio, low, high = ratio_with_interval(np.array([2.0, 8.0]), np.array([1.0, 4.0]))
    assert ratio == pytest.approx(2.0)
    assert low < ratio < high
    assert ratio_with_interval(np.full(5, 3.0), np.full(5, 2.0)) == pytest.approx((1.5, 1.5, 1.5))


@pytest.mark.usefixtures("benchmarks")
def test_stacked_networks_train_as_each_would_alone():
    """Slots must be independent of each other."""
    from dataclasses import replace

    from sampler_fleet import Fleet, Slot
    from sampler_problems import PROBLEMS

    from melissa_gen.sampling import create

    problem = replace(PROBLEMS["front20"], simulations=16, steps=20)
    points = problem.prior.sample(20, np.random.default_rng(0))
    fields = problem.solve(points)

    def errors(seeds):
        slots = [Slot(create("uniform", problem.prior, seed), seed, 0.5) for seed in seeds]
        fleet = Fleet(problem, slots, (0.0, 1.0))
        fleet.run()
        return fleet.errors(points, fields)

    together = errors([3, 4])
    np.testing.assert_allclose(together[0], errors([3])[0], rtol=1e-3)
    assert not np.allclose(together[0], together[1], rtol=1e-2)


@pytest.mark.usefixtures("benchmarks")
def test_held_out_problems_are_kept_apart_and_each_is_hard_in_a_part_of_its_prior():
    from sampler_held_out import HELD_OUT
    from sampler_problems import PROBLEMS

    assert len(HELD_OUT) >= 6 and not set(HELD_OUT) & set(PROBLEMS)
    kinds = {d["distribution"] for one in HELD_OUT.values() for d in one.parameters.values()}
    assert {"categorical", "integer"} <= kinds
    for name, problem in HELD_OUT.items():
        points = problem.prior.sample(512, np.random.default_rng(1))
        fields = problem.solve(points)
        assert fields.shape == (512, problem.times, problem.size) and fields.dtype == np.float32
        assert np.isfinite(fields).all()
        np.testing.assert_array_equal(problem.solve(points[:5]), fields[:5])
        # Neighboring grid points differ most where the field is hard to learn: in less than half of the prior.
        rough = np.abs(np.diff(fields, axis=2)).mean(axis=(1, 2))
        share = (rough > 0.5 * rough.max()).mean()
        assert 0.002 < share < 0.5, name


@pytest.mark.usefixtures("benchmarks")
@pytest.mark.parametrize("name", ["breed_published", "ogas_published"])
def test_published_settings_are_legal(name):
    from sampler_settings import SETTINGS

    from melissa_gen.sampling import check_arguments

    setting = SETTINGS[name]
    check_arguments(setting.method, setting.arguments)
    assert setting.per_round == 20


@pytest.mark.usefixtures("benchmarks")
def test_methods_are_compared_with_sobol_over_problems():
    from samplers import METRICS, over_families

    def of(sobol, other):
        rows = {"sobol": dict.fromkeys(METRICS, (sobol,)), "x": dict.fromkeys(METRICS, (other,))}
        return {"ratio": rows, "relative_ratio": rows}

    text = over_families([of(1.0, 2.0), of(2.0, 2.0)])
    assert "2 problems, absolute errors" in text and "2 problems, relative errors" in text
    line = next(line for line in text.splitlines() if line.startswith("x"))
    assert line.split() == ["x", *["1.41"] * len(METRICS), "1"]

"""The comparison of Breed and OGAS in `tests/benchmarks/published`: its studies, its cells and its table."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from melissa_gen.study import load_study

PUBLISHED = Path(__file__).parents[2] / "benchmarks" / "published"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    """The script, imported as from its folder."""
    monkeypatch.syspath_prepend(str(PUBLISHED))
    import online_samplers

    return online_samplers


def test_each_cell_is_a_legal_study_with_the_published_settings(script):
    for name, case in script.CASES.items():
        for method in script.METHODS:
            settings = script.settings(case, method, 3)
            study = load_study(script.SIMULATIONS / case.study, settings)
            assert study.simulation.count == case.simulations, name
            published = method in ("breed", "ogas")
            assert study.sampler.generation_size == (case.capacity if published else 10)
            assert (study.training.importance_exponent == 0.0) == published
    assert study.seed == 3 and study.sampler.method == "adaptive"


def test_ratios_are_those_of_uniforms_errors_at_the_same_seed(script, tmp_path):
    folder = tmp_path / "kdv"
    folder.mkdir()
    for method, seed, error in (("uniform", 0, 4.0), ("uniform", 1, 9.0), ("sobol", 0, 2.0)):
        cell = {
            "rollout": [error, 2 * error],
            "one_step": [error, 3 * error],
            "batches": 1,
            "seconds": 1,
        }
        (folder / f"{method}-{seed}.json").write_text(json.dumps(cell))
    rows = script.tables(tmp_path, ["kdv"]).rows
    (sobol,) = [row for row in rows if row[:3] == ("kdv", "sobol", "rollout")]
    assert sobol[3:9] == (1, 2.0, 2.0, 2.0, 2.0, 2.0)
    assert ("a", "breed", "published", None, 1.31, 3.23, None, None, 4.75) in {r[:9] for r in rows}


@pytest.mark.long
def test_a_quick_comparison_has_cells_of_both_methods(tmp_path):
    found = tmp_path / "table.json"
    command = [sys.executable, PUBLISHED / "online_samplers.py", "--quick", "--json", found]
    subprocess.run(command, check=True, capture_output=True, timeout=280)
    rows = json.loads(found.read_text())["rows"]
    methods = [row[1] for row in rows if row[0] == "kdv" and row[2] == "rollout"]
    assert methods == ["uniform", "breed"]

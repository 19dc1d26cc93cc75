import pytest
import yaml

from melissa_gen.study import load_study

HEAT = {
    "name": "small",
    "parameters": {
        "a": {"distribution": "uniform", "low": 0.0, "high": 1.0},
        "b": {"distribution": "uniform", "low": 1.0, "high": 2.0},
    },
    "simulation": {
        "command": ["python", "solver.py"],
        "count": 4,
        "time_steps": 5,
        "fields": {"u": {"shape": [3]}},
    },
    "reservoir": {"capacity": 20, "watermark": 4},
    "training": {"batch_size": 2},
}


@pytest.fixture
def study_file(tmp_path):
    """A small study beside a solver that is never run."""
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "solver.py").write_text("print('solving')\n")
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(HEAT))
    return path


@pytest.fixture
def study(study_file):
    return load_study(study_file)

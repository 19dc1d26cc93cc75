"""A small study beside a solver that is never run, for tests of what depends on a study's files."""

import yaml

SMALL_STUDY = {
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


def write_small_study(folder):
    """Writes the study and its solver into a new folder, and returns the path of the study."""
    folder.mkdir()
    (folder / "solver.py").write_text("print('solving')\n")
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(SMALL_STUDY))
    return path

"""The study of a run without training can be read again by its server, whatever else the study asks for."""

from pathlib import Path

import pytest

from melissa_gen.launcher.commands.generate import dataset_study
from melissa_gen.run_dir.folder import record_run
from melissa_gen.study import load_study

SIMULATIONS = Path(__file__).parents[3] / "simulations"
STUDIES = sorted(path.relative_to(SIMULATIONS).as_posix() for path in SIMULATIONS.glob("*/*.yaml"))


@pytest.mark.parametrize("name", STUDIES)
def test_the_server_can_read_it(name, tmp_path):
    study = load_study(SIMULATIONS / name)
    record_run(dataset_study(study, 3), tmp_path)
    again = load_study(tmp_path / "study.yaml", folder=study.folder)
    assert again.simulation.count == 3
    assert again.record is None and again.statistics is None

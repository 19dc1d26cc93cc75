import pytest

from melissa_gen.study import load_study
from tests.unit.small_study import write_small_study


@pytest.fixture
def study_file(tmp_path):
    """A small study beside a solver that is never run."""
    return write_small_study(tmp_path / "study")


@pytest.fixture
def study(study_file):
    return load_study(study_file)

"""The output of a data set is tried before the first simulation."""

from pathlib import Path

import pytest

from melissa_gen.errors import RunError
from melissa_gen.launcher.commands.generate import check_output


def test_a_new_file_in_a_new_folder(tmp_path):
    check_output(tmp_path / "deep" / "data.h5", 1000, overwrite=False)
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_complete_data_set_is_kept(tmp_path):
    path = tmp_path / "data.h5"
    path.write_text("a data set")
    with pytest.raises(RunError, match="exists already; choose another name, or add --overwrite"):
        check_output(path, 1000, overwrite=False)
    check_output(path, 1000, overwrite=True)
    assert path.read_text() == "a data set"


@pytest.mark.parametrize(
    ("place", "size", "words"),
    [
        (".", 1000, "is a folder; give the name of a file in it"),
        ("file/data.h5", 1000, "the folder can't be created"),
        ("/proc/data.h5", 1000, "the folder /proc is not writable"),
        ("/dev/null", 1000, "is a device or socket and not a file"),
        ("data.h5", 10**18, "is full: .* at least 1,000,000,000,000 MB are required"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_place_that_can_not_be_written(tmp_path, place, size, words, overwrite):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=words):
        check_output(tmp_path / Path(place), size, overwrite=overwrite)

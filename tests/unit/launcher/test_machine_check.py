"""Defects of a machine are named in one sentence before a run starts."""

import subprocess
import sys

import pytest

from melissa_gen.errors import RunError
from melissa_gen.launcher.backends.machine_check import check_loopback, check_shared_memory


def test_this_machine_is_sound(tmp_path):
    check_shared_memory(tmp_path, least=1)
    check_loopback()


def test_shared_memory_that_is_too_small(tmp_path):
    with pytest.raises(RunError, match=r"MB are free; at least 1000000000000 MB .* --shm-size=1g"):
        check_shared_memory(tmp_path, least=10**18)


@pytest.mark.parametrize("place", ["/proc", "/no/such/folder"])
def test_shared_memory_that_can_not_be_written(place, tmp_path):
    with pytest.raises(RunError, match="which can't be written"):
        check_shared_memory(tmp_path / place)


def test_a_machine_without_loopback():
    script = "from melissa_gen.launcher.backends.machine_check import check_loopback as c; c()"
    words = ["unshare", "--net"]
    if subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not create a network namespace")
    said = subprocess.run(
        [*words, sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert "find each other through the loopback interface (127.0.0.1)" in said.stderr
    assert "set server.ranks to 1" in said.stderr

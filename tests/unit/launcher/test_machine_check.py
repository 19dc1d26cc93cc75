"""Defects of a machine are named in one sentence before a run starts."""

import subprocess
import sys

import pytest

from melissa_gen.errors import RunError
from melissa_gen.launcher.backends.machine_check import check_loopback, check_shared_memory


def test_this_machine_is_sound(tmp_path):
    check_shared_memory(tmp_path, least=1)
    check_loopback(2)


def test_shared_memory_that_is_too_small(tmp_path):
    with pytest.raises(RunError, match=r"MB are free; at least 1000000000000 MB .* --shm-size=1g"):
        check_shared_memory(tmp_path, least=10**18)


@pytest.mark.parametrize("place", ["/proc", "/no/such/folder"])
def test_shared_memory_that_can_not_be_written(place, tmp_path):
    with pytest.raises(RunError, match="which can't be written"):
        check_shared_memory(tmp_path / place)


NO_LOOPBACK, VERSION_6 = "true", "ip link set lo up && ip addr del 127.0.0.1/8 dev lo"


@pytest.mark.parametrize(
    ("machine", "ranks", "remedy"),
    [
        (NO_LOOPBACK, 1, "ip link set lo up; or set server.interface to another interface"),
        (NO_LOOPBACK, 2, "ip link set lo up; or set server.interface to another interface"),
        (VERSION_6, 2, "ip addr add 127.0.0.1/8 dev lo; or set server.ranks to 1"),
        (VERSION_6, 1, ""),
    ],
)
def test_a_machine_without_a_loopback_interface_or_with_ipv6_alone(machine, ranks, remedy):
    script = (
        "from melissa_gen.launcher.backends.machine_check import check_loopback; "
        f"check_loopback({ranks})"
    )
    words = ["unshare", "--net", "sh", "-ec"]
    tried = subprocess.run([*words, machine], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no network namespace can be set up here: {tried.stderr.strip()}")
    said = subprocess.run(
        [*words, f'{machine}; exec "$@"', "sh", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == bool(remedy), said.stderr
    sentence = said.stderr.rpartition("RunError: ")[2].strip()
    assert sentence.startswith("the server needs the loopback interface" if remedy else "")
    assert sentence.endswith(remedy)

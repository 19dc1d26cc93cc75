"""A command continues if its output fails."""

import os
import subprocess
import sys

import pytest

# Prints, waits for a byte on standard input, prints again, and says on a separate descriptor that it has got there.
COMMAND = """
import os, sys
from melissa_gen.report.steady_output import open_closed_descriptors, steady_output
open_closed_descriptors()
with steady_output(drain=float(sys.argv[2])):
    print("first")
    sys.stdin.buffer.read(1)
    for _ in range(int(sys.argv[3])):
        print("second " + "x" * 50)
    print("third", file=sys.stderr)
    os.write(int(sys.argv[1]), b"end")
os.write(int(sys.argv[1]), b"out")
print("fourth", flush=True)
"""


@pytest.fixture
def command():
    """Starts the command; returns the process, and the descriptor on which it says that it has reached the end."""
    started = []

    def start(stdout, *, drain=60, lines=1, shell='exec "$@"', stderr=subprocess.PIPE):
        told, tell = os.pipe()
        words = [sys.executable, "-c", COMMAND, str(tell), str(drain), str(lines)]
        process = subprocess.Popen(
            ["sh", "-c", shell, "sh", *words],
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            pass_fds=[tell],
        )
        os.close(tell)
        started.append((process, told))
        return process, told

    yield start
    for process, told in started:
        process.kill()
        with process:
            os.close(told)


def test_everything_is_written_in_order(command):
    process, told = command(subprocess.PIPE, stderr=subprocess.STDOUT, lines=3)
    output, _ = process.communicate(b"x", timeout=60)
    assert [line.split()[0] for line in output.decode().splitlines()] == [
        "first",
        *["second"] * 3,
        "third",
        "fourth",
    ]
    assert os.read(told, 3) == b"end"
    assert process.returncode == 0


def test_a_reader_that_has_ended(command):
    process, told = command(subprocess.PIPE, lines=2000)
    assert process.stdout.readline() == b"first\n"
    process.stdout.close()
    process.stdin.write(b"x")
    process.stdin.flush()
    assert os.read(told, 3) == b"end"
    assert process.wait(60) == 0
    errors = process.stderr.read().decode()
    assert "standard output can't be written any more: Broken pipe" in errors
    assert "third" in errors
    assert "Traceback" not in errors


def test_a_full_disk(command):
    with open("/dev/full", "wb") as full:
        process, told = command(full)
    _, errors = process.communicate(b"x", timeout=60)
    assert os.read(told, 3) == b"end"
    assert process.returncode == 0
    assert "No space left on device" in errors.decode()


def test_both_streams_on_a_full_disk(command):
    with open("/dev/full", "wb") as full:
        process, told = command(full, stderr=full)
    process.communicate(b"x", timeout=60)
    assert os.read(told, 3) == b"end"
    assert process.returncode == 0


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_streams_that_are_closed(command, closed):
    process, told = command(subprocess.PIPE, shell=f'exec "$@" {closed}')
    process.communicate(b"x", timeout=60)
    assert os.read(told, 3) == b"end"
    assert process.returncode == 0


def test_a_reader_that_does_not_read_does_not_block_the_run(command):
    process, told = command(subprocess.PIPE, lines=5000)
    process.stdin.write(b"x")
    process.stdin.flush()
    # More than a pipe holds was printed, and nothing was read.
    assert os.read(told, 3) == b"end"
    output, _ = process.communicate(timeout=60)
    assert output.count(b"second") == 5000


def test_the_end_waits_for_a_reader_for_a_limited_time(command):
    process, told = command(subprocess.PIPE, lines=5000, drain=0.1)
    process.stdin.write(b"x")
    process.stdin.flush()
    assert os.read(told, 3) == b"end"
    assert os.read(told, 3) == b"out"


def test_text_that_the_encoding_lacks(command):
    script = "import os; from melissa_gen.report.steady_output import steady_output\n"
    script += "with steady_output(): print(os.fsdecode(b'caf\\xe9'), '\\u2501')"
    said = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.stdout == "caf\\udce9 \\u2501\n"
    assert said.stderr == ""

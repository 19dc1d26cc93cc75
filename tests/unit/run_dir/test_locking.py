"""Locks of a run directory, also on a file system without locks."""

import contextlib
import errno
import fcntl
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from melissa_gen.run_dir.locking import LockedError, held, holder_of

HERE = f"process {os.getpid()} on {socket.gethostname()}"


def unsupported(number):
    def flock(file, operation):
        raise OSError(number, os.strerror(number))

    return flock


@pytest.fixture(params=[0, errno.ENOLCK, errno.EOPNOTSUPP])
def flock(request):
    return unsupported(request.param) if request.param else fcntl.flock


def test_a_second_process_is_refused_with_the_name_of_the_first(tmp_path, flock, caplog):
    lock = tmp_path / ".lock"
    with held(lock, flock):
        assert holder_of(lock, flock) == HERE
        with pytest.raises(LockedError, match=HERE), held(lock, flock):
            pass
        assert holder_of(lock, flock) == HERE
    assert holder_of(lock, flock) == ""
    with held(lock, flock):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    lines = {record.getMessage() for record in caplog.records}
    assert len(lines) == (flock is not fcntl.flock)
    assert all("has no locks (flock)" in line for line in lines)


HOLD = """
import os, sys
from pathlib import Path
from melissa_gen.run_dir.locking import held
def flock(file, operation):
    raise OSError(int(sys.argv[2]), "")
with held(Path(sys.argv[1]), flock):
    os._exit(0)
"""


def test_without_locks_a_killed_process_does_not_hold_a_lock(tmp_path):
    lock, flock = tmp_path / ".lock", unsupported(errno.ENOLCK)
    subprocess.run([sys.executable, "-c", HOLD, lock, str(errno.ENOLCK)], check=True)
    assert (tmp_path / ".lock.owner").exists()
    assert holder_of(lock, flock) == ""
    with held(lock, flock):
        assert holder_of(lock, flock) == HERE


def test_without_locks_another_process_with_the_number_does_not_hold_the_lock(tmp_path):
    lock, flock = tmp_path / ".lock", unsupported(errno.ENOLCK)
    (tmp_path / ".lock.owner").write_text(f"{HERE}\n1\n")
    with held(lock, flock):
        pass


class SlowFile(type(Path())):
    """A path where two threads that would delete the same file do so in the worst order: after the other's creation."""

    meeting, created = threading.Barrier(2), threading.Event()

    def unlink(self, missing_ok=False):
        with contextlib.suppress(threading.BrokenBarrierError):
            if self.meeting.wait(timeout=0.2) == 0:
                self.created.wait(10)
        super().unlink(missing_ok)

    def open(self, mode="r", **options):
        opened = super().open(mode, **options)
        if mode == "x":
            self.created.set()
        return opened


def test_of_two_that_find_the_file_of_an_ended_owner_one_gets_the_lock(tmp_path):
    lock, flock, tried = (
        SlowFile(tmp_path / ".lock"),
        unsupported(errno.ENOLCK),
        threading.Barrier(2),
    )
    (tmp_path / ".lock.owner").write_text(f"{HERE}\n1\n")

    def start(_):
        try:
            with held(lock, flock):
                tried.wait(30)
                return 1
        except LockedError:
            tried.wait(30)
            return 0

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(start, range(2))) == 1


def test_without_locks_a_process_of_another_machine_holds_the_lock_until_its_file_is_deleted(
    tmp_path,
):
    lock, flock = tmp_path / ".lock", unsupported(errno.EOPNOTSUPP)
    owner = tmp_path / ".lock.owner"
    owner.write_text("process 7 on elsewhere\n1234\n")
    with pytest.raises(LockedError, match=f"if it has ended, delete {owner}"), held(lock, flock):
        pass
    owner.unlink()
    with held(lock, flock):
        pass


def test_other_errors_are_raised(tmp_path):
    with pytest.raises(OSError, match="Input/output"), held(tmp_path / "l", unsupported(errno.EIO)):
        pass

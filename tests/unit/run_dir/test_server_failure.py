"""The reason for which a server has ended, in a file of its own."""

import os
import signal

from melissa_gen.run_dir.server_failure import (
    ServerFailure,
    forget_server_failure,
    read_server_failure,
    write_server_failure,
)


def test_the_first_reason_stays_until_the_next_server_starts(tmp_path):
    (tmp_path / "logs").mkdir()
    assert read_server_failure(tmp_path).reason == ""
    write_server_failure(tmp_path, "rank 1 of the server has\nbeen silent")
    write_server_failure(tmp_path, "connection closed by peer")
    assert read_server_failure(tmp_path).reason == "rank 1 of the server has been silent"
    forget_server_failure(tmp_path)
    assert read_server_failure(tmp_path).reason == ""
    forget_server_failure(tmp_path)


def test_a_server_that_refuses_the_study_says_so(tmp_path):
    (tmp_path / "logs").mkdir()
    write_server_failure(tmp_path, "the network can't be trained", refused=True)
    assert read_server_failure(tmp_path) == ServerFailure("the network can't be trained", True)
    forget_server_failure(tmp_path)
    write_server_failure(tmp_path, "the disk is full")
    assert read_server_failure(tmp_path) == ServerFailure("the disk is full", refused=False)


def test_a_path_that_is_not_utf_8_and_a_file_that_is_cut_off(tmp_path):
    (tmp_path / "logs").mkdir()
    write_server_failure(tmp_path, "can't open net\udcff.py")
    assert read_server_failure(tmp_path).reason == "can't open net\\udcff.py"
    (tmp_path / "logs" / "server-failure.txt").write_bytes("the study at é".encode()[:-1])
    assert read_server_failure(tmp_path).reason == "the study at \ufffd"


def test_a_folder_that_can_not_be_written_is_no_further_failure(tmp_path):
    write_server_failure(tmp_path, "the disk is full")
    assert read_server_failure(tmp_path).reason == ""


def test_a_file_system_without_hard_links_keeps_the_first_reason(tmp_path, monkeypatch):
    def refused(*paths):
        raise PermissionError(*paths)

    monkeypatch.setattr(os, "link", refused)
    (tmp_path / "logs").mkdir()
    write_server_failure(tmp_path, "the network can't be trained", refused=True)
    write_server_failure(tmp_path, "a peer is gone")
    assert read_server_failure(tmp_path) == ServerFailure("the network can't be trained", True)
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["server-failure.txt"]


def test_a_rank_that_is_killed_as_soon_as_its_file_appears_has_left_the_whole_reason(tmp_path):
    (tmp_path / "logs").mkdir()
    for _ in range(20):
        rank = os.fork()
        if rank == 0:
            write_server_failure(tmp_path, "the network can't be trained", refused=True)
            signal.pause()
        while not (tmp_path / "logs" / "server-failure.txt").exists():
            pass
        os.kill(rank, signal.SIGKILL)
        os.waitpid(rank, 0)
        assert read_server_failure(tmp_path).refused
        forget_server_failure(tmp_path)

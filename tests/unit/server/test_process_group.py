"""The process group of torch.distributed uses the interface of the run, whatever the environment says."""

import logging
import os

import pytest
import torch
import torch.distributed as dist

from melissa_gen.server.training.process_group import join_process_group
from melissa_gen.study import load_study
from tests.unit.server.trainers import OneRank
from tests.unit.small_study import write_small_study


@pytest.mark.parametrize(
    ("variable", "interface", "used", "warned"),
    [
        (None, "auto", "lo", False),
        ("lo", "auto", "lo", False),
        ("nothing0", "auto", "lo", True),
        ("eth9", "lo", "lo", True),
    ],
)
def test_an_interface_in_the_environment_does_not_beat_the_study(
    tmp_path, monkeypatch, caplog, variable, interface, used, warned
):
    for library in ("GLOO", "NCCL"):
        monkeypatch.setenv(f"{library}_SOCKET_IFNAME", variable or "")
        if variable is None:
            monkeypatch.delenv(f"{library}_SOCKET_IFNAME")
    path = write_small_study(tmp_path / "study")
    study = load_study(path, [f"server.interface={interface}"])
    with caplog.at_level(logging.WARNING):
        join_process_group(study, OneRank(), torch.device("cpu"), "gloo")
    try:
        assert dist.get_world_size() == 1
        assert os.environ["GLOO_SOCKET_IFNAME"] == os.environ["NCCL_SOCKET_IFNAME"] == used
        words = [record.getMessage() for record in caplog.records]
        expected = f"GLOO_SOCKET_IFNAME is '{variable}'; the server uses the interface '{used}'"
        assert (expected in words) == warned
    finally:
        dist.destroy_process_group()

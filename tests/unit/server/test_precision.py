"""`training.precision: tf32` reaches torch, and nothing else changes its matrix products."""

import pytest
import torch
import torch.distributed as dist

from melissa_gen import reservoir
from melissa_gen.builders.fields import field_specs
from melissa_gen.run_dir.purpose import Purpose
from melissa_gen.server.rank_state import RankState
from melissa_gen.server.setup import RankSetup
from melissa_gen.server.training.training_consumer import TrainingConsumer
from tests.unit.server.trainers import OneRank, study_of


@pytest.fixture
def process(monkeypatch):
    """Restores what a server rank changes, because it has a process of its own."""
    for library in ("GLOO", "NCCL"):
        monkeypatch.setenv(f"{library}_SOCKET_IFNAME", "")
    threads, products = torch.get_num_threads(), torch.get_float32_matmul_precision()
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(products)


@pytest.mark.usefixtures("process")
@pytest.mark.parametrize("before", ["highest", "medium"])
@pytest.mark.parametrize("precision", ["tf32", "float32", "bf16"])
def test_only_tf32_changes_how_torch_multiplies_matrices(tmp_path, precision, before):
    study = study_of(training={"precision": precision}, server={"threads": 1})
    torch.set_float32_matmul_precision(before)
    store = reservoir.SlotStore(field_specs(study.simulation), 9, 2)
    memory = reservoir.create("reservoir", store, 8, 8, 0)
    setup = RankSetup(study, Purpose(), tmp_path, 0, 0, 1, 0.0)
    TrainingConsumer(setup, OneRank(), None, None, memory, RankState())
    try:
        wanted = "high" if precision == "tf32" else before
        assert torch.get_float32_matmul_precision() == wanted
    finally:
        dist.destroy_process_group()

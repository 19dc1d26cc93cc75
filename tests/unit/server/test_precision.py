"""How torch computes in a server rank: `tf32` alone changes matrix products, and tiny numbers are zero."""

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
def network_interfaces(monkeypatch):
    """Restores the choice of network interfaces, which a server rank makes for its process."""
    for library in ("GLOO", "NCCL"):
        monkeypatch.setenv(f"{library}_SOCKET_IFNAME", "")


@pytest.mark.usefixtures("network_interfaces", "torch_settings")
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
        # Computing with it would be many times slower.
        assert torch.tensor([1e-39]).mul(1.0).item() == 0.0
    finally:
        dist.destroy_process_group()

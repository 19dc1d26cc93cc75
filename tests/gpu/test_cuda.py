"""Training on a GPU: whole studies, a server that is replaced, and the same step as on the CPU."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from melissa_gen.surrogates import load
from tests.unit.server.trainers import generator, study_of, trainer_of, world

__all__ = ["generator", "world"]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here"),
]

SOLVER = Path(__file__).parents[1] / "faults" / "solver.py"
ONE = {"server.ranks": 1, "server.device": "cuda"}


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("changes", "gradients"),
    [
        (ONE, "nccl"),
        (ONE | {"server.device": "auto"}, "nccl"),
        (ONE | {"training.precision": "bf16"}, "nccl"),
        (ONE | {"training.compile": True}, "nccl"),
        (
            ONE | {"surrogate.ensemble": {"kind": "heads"}, "sampler.difficulty": "gradient_norm"},
            "nccl",
        ),
        ({"server.ranks": 2, "server.device": "cuda"}, "gloo"),
    ],
    ids=["cuda", "auto", "bf16", "compile", "heads", "two_ranks_on_one_gpu"],
)
def test_a_study_trains_on_the_gpu(runs, changes, gradients):
    if gradients == "gloo" and torch.cuda.device_count() > 1:
        pytest.skip("each rank has a GPU of its own here")
    small = {
        "sampler.method": "diffusion_posterior",
        "training.validation": {"simulations": 4, "every": 10},
        "simulation.count": 12,
    }
    run = runs.run(runs.study(small | changes, solver=SOLVER))
    run.assert_finished()
    (started,) = run.events("training_started")
    name = torch.cuda.get_device_name(0)
    assert (started["device"], started["gradients"]) == (name, gradients)
    assert f"training started on {name}, gradients by {gradients}" in run.output
    memory = run.summary["memory"]
    peaks, promised = memory["peak_rss_megabytes_per_rank"], memory["promised_megabytes_per_rank"]
    assert all(peak <= most for peak, most in zip(peaks, promised, strict=True)), memory
    found = load(run.run_dir / "checkpoints" / "final").predict({"a": 0.5, "b": 1.0}, time=0.5)
    assert np.isfinite(found["u"]).all()


@pytest.mark.mpi
def test_ranks_that_share_a_gpu_report_why_they_do_not_use_it(runs):
    if torch.cuda.device_count() > 1:
        pytest.skip("each rank has a GPU of its own here")
    run = runs.run(runs.study({"server.ranks": 2, "server.device": "auto"}, solver=SOLVER))
    run.assert_finished()
    assert "2 server ranks see 1 GPU, so that all train on the CPU" in run.output


@pytest.mark.mpi
def test_a_killed_server_resumes_on_the_gpu(runs):
    changes = ONE | {
        "simulation.command": ["python", "solver.py", "--gate", "open"],
        "simulation.count": 10,
        "server.heartbeat_timeout": 4,
        "training.checkpoint_every": 0.1,
        "launcher.server_retries": 1,
    }
    study = runs.study(changes, solver=SOLVER)
    run = runs.start(study)
    run.wait_event("simulation_finished", 6)
    run.wait_event("simulation_issued", 8)
    run.wait_event("checkpoint", len(run.events("checkpoint")) + 2)
    (server,) = runs.ranks("melissa_gen.server")
    os.kill(server, signal.SIGKILL)
    (study.parent / "open").touch()
    run.wait()
    assert run.code == 0, run.output
    run.assert_adds_up()
    (resumed,) = run.events("resumed")
    assert resumed["batches"] > 0


def test_a_step_is_that_of_the_cpu():
    """Losses and weights after ten steps on the same batches, in single precision."""
    study = study_of(
        training={"batch_size": 48, "learning_rate": 0.002},
        reservoir={"watermark": 48},
        surrogate={"arguments": {"hidden": [64, 64]}},
    )
    found = {}
    for kind in ("cpu", "cuda"):
        torch.manual_seed(5)
        trainer, state = trainer_of(study, device=kind)
        trainer.wait_for_first_samples()
        batch = trainer.draw(48)
        losses = torch.stack([trainer.learn(batch, 48).cpu() for _ in range(10)])
        weights = torch.cat([w.detach().cpu().flatten() for w in trainer.surrogate.parameters()])
        found[kind] = losses.double().numpy(), weights.double().numpy()
        assert len(state.take_first_pass()) == 480
    np.testing.assert_allclose(found["cuda"][0], found["cpu"][0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["cuda"][1], found["cpu"][1], rtol=1e-3, atol=1e-5)


def test_batches_are_not_overwritten_while_they_are_copied():
    """The copy to the GPU is asynchronous; each step must see its own samples, not the next ones."""
    study = study_of(
        simulation={"fields": {"u": {"shape": [200_000]}}}, surrogate={"arguments": {"hidden": [8]}}
    )
    trainer, _ = trainer_of(study, device="cuda")
    trainer.wait_for_first_samples()
    seen = []
    target_of = trainer.surrogate.target

    def watched(fields):
        seen.append(fields["u"].clone())
        return target_of(fields)

    trainer.surrogate.target = watched
    wanted = []
    for _ in range(6):
        batch = trainer.draw(8)
        wanted.append(trainer.rows.fields["u"].clone())
        trainer.record(batch, trainer.learn(batch, 8), 8)
    for got, right in zip(seen, wanted, strict=True):
        assert torch.equal(got.cpu(), right)

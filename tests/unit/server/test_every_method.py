"""Every sampling method in the proposal queue of the server: generations, evidence, weights and events."""

import contextlib
import importlib
import threading

import numpy as np
import pytest

from melissa_gen.sampling import METHODS, DifficultyTracker, Prior, create
from melissa_gen.server.coordination.ledger import SimulationRecord
from melissa_gen.server.coordination.proposal_queue import ProposalQueue

with contextlib.suppress(ImportError):
    importlib.import_module("libensemble.gen_classes.sampling")

ADAPTIVE = set(METHODS) - {
    *(
        "uniform",
        "sobol",
        "halton",
        "lhs",
        "grid",
        "pick_freeze",
        "table",
        "uniform_resampled",
        "r3",
    )
}
ARGUMENTS = {
    "lhs": {"size": 24},
    "adaptive": {"gate": False},
    "table": {"points": [[0.1, 2.0], [0.5, 3.0]]},
    "external": {"generator": "libensemble.gen_classes.sampling.UniformSample"},
    "phased": {"phase": 6},
    "conditional_diffusion": {"steps": 10, "training_steps": 20, "hidden": 16},
    "diffusion_prior": {"steps": 10, "training_steps": 20, "hidden": 16},
    "joint": {"steps": 10, "training_steps": 5, "width": 16, "layers": 1},
    "flow": {"population": 128, "training_steps": 2, "hidden": 8, "rounds": 1, "transforms": 1},
    "gan": {"training_steps": 10, "hidden": 16},
    "energy": {"chains": 64, "leapfrog": 3, "moves": 2},
    "twisted": {"steps": 8, "particles": 64, "particles_per_point": 2},
    "diffusion_posterior": {"steps": 8},
}
SIZE, GENERATIONS = 12, 3


@pytest.mark.parametrize("method", METHODS)
def test_the_proposal_queue_serves_every_method(method):
    needs = {"flow": "zuko", "external": "libensemble"}.get(method)
    if needs is not None:
        pytest.importorskip(needs, reason=f"the method '{method}' is tested with {needs}")
    prior = Prior.from_mapping(
        {"a": {"low": 0.0, "high": 1.0}, "b": {"distribution": "log_uniform", "low": 1, "high": 9}}
    )
    events, made = [], threading.Semaphore(0)

    def event(name, **fields):
        events.append(fields)
        made.release()
        return {"event": name, **fields}

    sampler = create(method, prior, 3, ramp_simulations=1, arguments=ARGUMENTS.get(method))
    queue = ProposalQueue(
        sampler,
        prior,
        DifficultyTracker("loss"),
        size=SIZE,
        low=1,
        total=SIZE * GENERATIONS,
        importance_exponent=0.5,
        seed=3,
        event=event,
    )
    queue.start()
    number, proposals = 0, []
    for generation in range(GENERATIONS):
        assert made.acquire(timeout=60), f"no generation {generation}: {queue.failure}"
        losses = []
        for left in range(SIZE, 0, -1):
            if left == 1:  # what is known before the last is taken is learned from
                queue.add_losses(losses)
            proposal = queue.take()
            proposals.append(proposal)
            queue.register(SimulationRecord(number, *proposal[:4]))
            losses += [[number, 0.1 + proposal.parameters[0], 0.0]] * 2
            number += 1
    queue.close()
    assert queue.failure is None and queue.late == 0
    assert [e["suggested"] for e in events] == [SIZE] * GENERATIONS
    points = np.array([p.parameters for p in proposals])
    assert prior.contains(points).all()
    assert all(np.isfinite(p.weight) and 0 < p.weight <= 4 for p in proposals)
    assert all(np.isfinite(list(e["diagnostics"].values())).all() for e in events)
    names = {p.method for p in proposals[-SIZE:]}
    assert method in names if method in ADAPTIVE else "prior" in names or names == {"table"}

"""Collocation points that are drawn by the samplers of the package."""

import json

import numpy as np
import pytest
import torch

from melissa_gen.builders.collocation import SamplersOfPoints
from melissa_gen.builders.surrogate import build_surrogate
from melissa_gen.builders.task import build_task
from melissa_gen.tasks.point_samplers import SampledPoints
from tests.unit.server.test_physics_informed import study_with
from tests.unit.server.trainers import generator, trainer_of, world

__all__ = ["generator", "world"]

CPU = torch.device("cpu")
SAMPLERS = SamplersOfPoints()


def rule_of(method, points=64, seed=3, every=None, **arguments):
    sampler = SAMPLERS.create(method, 2, seed, arguments, "collocation")
    return SampledPoints(points, 2, CPU, sampler, every)


def near_the_end(points):
    return torch.exp(-40.0 * (1.0 - points[:, 0]))


@pytest.mark.parametrize("method", ["sobol", "halton", "lhs", "pool"])
def test_points_are_in_the_cube_and_continue_from_a_checkpoint(method):
    rule = rule_of(method, every=2)
    first = rule.draw(near_the_end)
    assert first.shape == (64, 2) and (first >= 0).all() and (first <= 1).all()
    torch.testing.assert_close(rule.draw(near_the_end), first)
    other = rule_of(method, every=2)
    other.restore(json.loads(json.dumps(rule.state())))
    following = rule.draw(near_the_end)
    assert (following != first).any()
    torch.testing.assert_close(other.draw(near_the_end), following)


def test_a_design_draws_new_points_in_each_batch_that_fill_the_cube():
    rule = rule_of("sobol")
    points = torch.cat([rule.draw(near_the_end) for _ in range(4)])
    counts, *_ = np.histogram2d(*points.T.numpy(), bins=4, range=[[0, 1], [0, 1]])
    assert (counts == 16).all()


@pytest.mark.parametrize("method", ["pool", "diffusion_posterior", "adaptive"])
def test_a_sampler_that_learns_draws_where_the_residual_is_large(method):
    rule = rule_of(method, points=200, every=1)
    points = [rule.draw(near_the_end) for _ in range(4)]
    late = [float((one[:, 0] > 0.9).float().mean()) for one in points]
    assert late[0] < 0.2 and late[-1] > 0.3


def test_residuals_that_are_not_finite_are_no_evidence():
    rule = rule_of("pool", every=1)
    rule.draw(near_the_end)
    found = rule.draw(lambda points: torch.full((len(points),), float("nan")))
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("collocation", ["sobol", {"method": "pool", "every": 3}])
def test_an_equation_is_learned_at_points_of_a_sampler(collocation):
    study = study_with({"collocation": collocation})
    trainer, _ = trainer_of(study)
    trainer.wait_for_first_samples()
    batch = trainer.draw(8)
    losses = [float(trainer.learn(batch, 8).mean()) for _ in range(30)]
    assert losses[-1] < losses[0]
    assert trainer.state()["learner"]["task"]["batches"] == 30


def test_ranks_draw_points_of_their_own_also_a_new_one():
    tasks = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        task = build_task(study_with({"collocation": "sobol"}))
        surrogate = build_surrogate(study_with({"collocation": "sobol"}), task)
        task.compare(surrogate, surrogate.network, task.example(surrogate), 0)
        tasks.append(task)
    first, second = (np.array(task.state()["population"]) for task in tasks)
    assert (first != second).any()
    assert set(tasks[0].state_of_new_rank(tasks[0].state())) == {"batches"}


def parameter(u, parameters, coordinates):
    """A residual that is the parameter of each point."""
    return parameters["a"] + 0.0 * u["u"]


@pytest.mark.parametrize(("parameters", "square"), [("batch", 0.25), ("uniform", 1.0 / 3.0)])
def test_points_may_have_parameters_between_the_simulations(parameters, square):
    arguments = {"residual": f"{__name__}.parameter", "points": 5000, "parameters": parameters}
    study = study_with(arguments)
    task = build_task(study)
    surrogate = build_surrogate(study, task)
    rows = task.example(surrogate)._replace(inputs=torch.full((4, 2), 0.5).double())
    found = task.compare(surrogate, surrogate.network, rows, 0)[-1].members[:, 0, 0]
    # Of drawn parameters, the mean square of the residual belongs to all rows alike.
    np.testing.assert_allclose(found.detach().numpy(), square, atol=0.02)
    assert (found == found[0]).all()

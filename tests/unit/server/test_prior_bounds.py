"""Bounds of the error over the prior, which end a study."""

import numpy as np
import torch

from melissa_gen.builders.prior import prior_of
from melissa_gen.builders.surrogate import build_surrogate
from melissa_gen.builders.task import build_task
from melissa_gen.server.consumer import Hooks
from melissa_gen.server.training.prior_bounds import BOUND_NAMES, PriorBounds
from melissa_gen.server.training.trainer import Trainer
from melissa_gen.surrogates import FirstErrors
from tests.unit.server.trainers import generator, study_of, trainer_of, world

__all__ = ["generator", "world"]


def errors_of(points, scale=0.01):
    """Errors that are ten times as large in the last fifth of the prior."""
    return FirstErrors(
        points, scale * np.where(points[:, 0] < 0.8, 1.0, 10.0), np.ones(len(points)), "nrmse"
    )


def test_percentiles_are_those_of_the_bounds_at_draws_of_the_prior():
    study = study_of()
    surrogate, prior = build_surrogate(study), prior_of(study)
    points = prior.sample(400, np.random.default_rng(1))
    surrogate.first_errors = errors_of(points)
    p50, p90, p99 = PriorBounds(prior, lambda: surrogate.first_errors, 0.9).measure(surrogate)
    bounds = surrogate.error_bound({"a": np.linspace(0.0, 1.0, 2001)}, level=0.9)
    for found, percent in ((p50, 50), (p90, 90), (p99, 99)):
        assert np.isclose(found, np.percentile(bounds, percent), rtol=0.1)
    assert p50 < 0.03 < 0.08 < p90


def test_bounds_are_infinite_while_there_are_too_few_simulations():
    study = study_of()
    surrogate, prior = build_surrogate(study), prior_of(study)
    few = errors_of(prior.sample(8, np.random.default_rng(1)))
    for known in (None, few):
        found = PriorBounds(prior, lambda known=known: known, 0.9).measure(surrogate)
        assert found == [np.inf] * len(BOUND_NAMES)


def test_a_training_reaches_its_goal_by_the_bounds_of_its_error():
    until = {"error_bound.p90": 0.1}
    study = study_of(
        training={
            "until": until,
            "metric": "relative",
            "validation": {"simulations": 0, "every": 3},
        }
    )
    filled, state = trainer_of(study)
    # First passes of a surrogate that learns: all errors are halved at each measurement.
    points = prior_of(study).sample(40, np.random.default_rng(1))
    measured = iter(range(100))
    bounds = PriorBounds(
        prior_of(study),
        lambda: FirstErrors(points, np.full(40, 0.15 / 2 ** next(measured)), np.ones(40), "nrmse"),
        0.9,
    )
    events, reached = [], []
    nothing = lambda *args, **more: None  # noqa: E731
    hooks = Hooks(
        lambda name, **more: events.append((name, more)),
        nothing,
        nothing,
        reached=reached.append,
    )
    trainer = Trainer(
        study,
        build_task(study),
        build_surrogate(study),
        filled.reservoir,
        state,
        None,
        torch.device("cpu"),
        hooks,
        nothing,
        bounds,
    )
    trainer.run()
    found = [more for name, more in events if name == "error_bound"]
    assert [one["batches"] for one in found] == [3, 6, 6] and found[0]["level"] == 0.9
    assert np.allclose([one["p90"] for one in found], [0.15, 0.075, 0.0375])
    wanted = "training.until is reached: error_bound.p90 is 0.075, at most 0.1 was wanted"
    assert reached == [wanted]

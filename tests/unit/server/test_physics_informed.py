"""The task `physics_informed`: equations, collocation points, conditions, data beside them, and mistakes."""

import math

import numpy as np
import pytest
import torch

from melissa_gen.builders.solution import write_solution
from melissa_gen.builders.surrogate import build_surrogate, try_surrogate
from melissa_gen.builders.task import build_task
from melissa_gen.dataset import Dataset
from melissa_gen.errors import StudyError
from melissa_gen.launcher.commands.train import train_alone
from melissa_gen.launcher.jobs.mpi_jobs import solver_command
from melissa_gen.study import Study
from melissa_gen.surrogates import load, save
from melissa_gen.surrogates.training_loss import TrainingLoss
from melissa_gen.tasks import Rows, gradient
from melissa_gen.tasks.collocation import R3, Rad, RarD, create_collocation
from melissa_gen.tasks.equations import burgers, convection, heat
from tests.unit.server.trainers import generator, study_of, trainer_of, world

__all__ = ["generator", "world"]

CPU = torch.device("cpu")
HERE = __file__


def study_with(arguments, **sections):
    arguments = {"residual": "convection", "points": 32, **arguments}
    task = {"class": "physics_informed", "arguments": arguments}
    network = {"hidden": [16, 16], "activation": "tanh"}
    sections["surrogate"] = {"task": task, "arguments": network, **sections.get("surrogate", {})}
    sections["training"] = {"learning_rate": 0.01, **sections.get("training", {})}
    return study_of(**sections)


def initial(u, parameters, coordinates):
    return u["u"] - torch.sin(coordinates["x"])


def exact(parameters, coordinates):
    return torch.sin(coordinates["x"] - parameters["a"] * coordinates["t"])


def flat(u, parameters, coordinates):
    return u["u"].sum()


def undefined(u, parameters, coordinates):
    return u["u"] / 0.0


def detached(u, parameters, coordinates):
    return u["u"].detach() + coordinates["x"]


def time(u, parameters, coordinates):
    return 1.0 + coordinates["t"] + 0.0 * u["u"]


def misspelled(u, parameters, coordinates):
    return u["v"]


def waves(t, x, nu):
    """The exact solutions of the three equations with their residual functions."""
    coordinates = {"t": t, "x": x}
    decay = torch.sin(x) * torch.exp(-nu * t)
    moving = torch.sin(x - 3.0 * t)
    # A stationary shock of the Burgers equation.
    shock = -torch.tanh(x / (2 * nu))
    return coordinates, [
        (heat, decay, {"diffusivity": "nu"}),
        (convection, moving, {"speed": 3.0}),
        (burgers, shock + 0.0 * t, {"viscosity": "nu"}),
    ]


def test_exact_solutions_have_no_residual():
    t, x = (torch.rand(20, dtype=torch.float64).requires_grad_() for _ in range(2))
    nu = torch.full((20,), 0.7, dtype=torch.float64)
    coordinates, found = waves(t, x, nu)
    for residual, u, arguments in found:
        values = residual({"u": u}, {"nu": nu}, coordinates, **arguments)
        torch.testing.assert_close(values, torch.zeros_like(values), atol=1e-12, rtol=0)
        other = residual({"u": u + x**3 * t}, {"nu": nu}, coordinates, **arguments)
        assert other.abs().max() > 0.1
    y = torch.rand(20, dtype=torch.float64).requires_grad_()
    plane = torch.sin(x) * torch.cos(2 * y) * torch.exp(-5 * t)
    values = heat({"u": plane}, {}, {**coordinates, "y": y})
    torch.testing.assert_close(values, torch.zeros_like(values), atol=1e-12, rtol=0)


def test_a_value_that_does_not_depend_on_a_coordinate_has_the_derivative_zero():
    x, y = (torch.ones(2, requires_grad=True) for _ in range(2))
    assert gradient(x**2, y).tolist() == [0.0, 0.0]
    assert gradient(torch.ones(2), x).tolist() == [0.0, 0.0]
    assert gradient(gradient(x**3, x), x).tolist() == [6.0, 6.0]


def test_r3_keeps_the_points_above_the_mean_and_draws_the_others_anew():
    rule = R3(6, 2, CPU)
    before = rule.draw(None).clone()
    rule.learn(torch.tensor([0.0, 5.0, 1.0, 9.0, 1.0, 2.0]))
    after = rule.draw(None)
    assert torch.equal(after[:2], before[[1, 3]]) and after.shape == before.shape
    assert not any((one == before).all(dim=1).any() for one in after[2:])
    assert rule.gate(after) is None
    rule.learn(torch.zeros(6))
    assert not any((one == after).all(dim=1).any() for one in rule.draw(None))


def test_the_causal_gate_opens_as_the_residuals_fall():
    rule = R3(4, 2, CPU, causal=True)
    rule.population = torch.tensor([[0.0, 0.5], [0.3, 0.5], [0.6, 0.5], [1.0, 0.5]])
    gate = rule.gate(rule.population)
    wanted = [(1 - math.tanh(5.0 * (t + 0.5))) / 2 for t in (0.0, 0.3, 0.6, 1.0)]
    np.testing.assert_allclose(gate, wanted, atol=1e-6)
    # The late point has the largest residual, but the gate is closed there.
    rule.learn(torch.tensor([2.0, 0.1, 0.1, 9.0]))
    assert torch.equal(rule.population[0], torch.tensor([0.0, 0.5]))
    assert rule.shift == pytest.approx(-0.5 + 1e-3 * 0.1)
    before = rule.shift
    rule.learn(torch.full((4,), 1e6))
    assert rule.shift == before


def test_rad_draws_by_the_residuals():
    rule = Rad(50, 2, CPU, every=3, pool=1000)
    np.testing.assert_allclose(rule.density(torch.tensor([0.0, 1.0, 3.0])) * 6, [1, 1.75, 3.25])
    first = rule.draw(None)
    assert rule.draw(None) is first and rule.draw(None) is first
    late = rule.draw(lambda points: (points[:, 0] > 0.9) * 1e3)
    assert (late[:, 0] > 0.9).float().mean() > 0.3 and len(late.unique(dim=0)) == 50
    # Without residuals, all points are equally probable.
    np.testing.assert_allclose(rule.density(torch.zeros(4)), [0.25] * 4)


def test_rar_d_adds_points_up_to_a_limit():
    rule = RarD(20, 2, CPU, every=1, added=8, largest=30, pool=500)
    np.testing.assert_allclose(rule.density(torch.tensor([1.0, 3.0])), [0.1, 0.9])
    residual = lambda points: (points[:, 1] < 0.2) * 1.0  # noqa: E731
    sizes = [len(rule.draw(residual)) for _ in range(4)]
    assert sizes == [20, 28, 30, 30]
    assert (rule.population[20:, 1] < 0.2).all()


@pytest.mark.parametrize("method", ["uniform", "r3", "rad", "rar_d"])
def test_the_points_are_in_the_cube_and_continue_from_a_checkpoint(method):
    rule = create_collocation(method, 10, 3, CPU)
    points = rule.draw(None)
    assert points.shape == (10, 3) and (points >= 0).all() and (points <= 1).all()
    rule.learn(torch.arange(10.0))
    other = create_collocation(method, 10, 3, CPU)
    other.restore(rule.state())
    if method != "uniform":
        torch.testing.assert_close(other.draw(None), rule.draw(None))


@pytest.mark.parametrize("collocation", ["uniform", {"method": "r3", "causal": True}])
def test_an_equation_is_learned_without_data(collocation):
    arguments = {
        "data": 0,
        "collocation": collocation,
        "conditions": [
            {"function": f"{HERE}:initial", "at": {"t": "low"}, "weight": 2.0},
            {"periodic": "x", "points": 8},
        ],
    }
    trainer, state = trainer_of(study_with(arguments))
    trainer.wait_for_first_samples()
    batch = trainer.draw(8)
    losses = [trainer.learn(batch, 8) for _ in range(60)]
    assert losses[0].shape == (8,)
    assert float(losses[-1].mean()) < 0.5 * float(losses[0].mean())
    assert {n for n, *_ in state.take_first_pass()} <= set(range(12))
    assert trainer.state()["learner"]["task"].keys() == (
        {"population", "shift"} if collocation != "uniform" else set()
    )


@pytest.mark.parametrize("ensemble", [None, {"kind": "heads"}])
def test_the_loss_is_the_weighted_sum_of_its_terms(ensemble):
    given = {"weight": 3.0, "data": 0.5, "data_points": 100, "points": 16}
    given["conditions"] = [{"function": f"{HERE}:initial", "at": {"t": 0}, "weight": 7.0}]
    study = study_with(given, surrogate={"ensemble": ensemble, "arguments": {}})
    task = build_task(study)
    surrogate = build_surrogate(study, task)
    rows = Rows(torch.rand(4, 2, dtype=torch.float64), {"u": torch.randn(4, 6)})
    compared = task.compare(surrogate, surrogate.network, rows, 0)
    members = 3 if ensemble else 1
    assert [one.members.shape for one in compared] == [
        (4, members, 6),
        (4, members, 1),
        (4, members, 1),
    ]

    loss = TrainingLoss(surrogate)
    each, mean = task.losses(loss, compared)
    data = loss.of_members(compared[0].members, compared[0].target)
    terms = [one.members[..., 0] for one in compared[1:]]
    torch.testing.assert_close(each, 0.5 * data + 3.0 * terms[0] + 7.0 * terms[1])
    if members == 1:
        torch.testing.assert_close(mean, each[:, 0])


@pytest.mark.parametrize("data", [0.0, 1.0])
def test_the_metric_of_the_sampler_is_that_of_the_data(data):
    study = study_with({"data": data}, training={"metric": "relative", "loss": "mse"})
    trainer, state = trainer_of(study)
    trainer.wait_for_first_samples()
    losses = trainer.learn(trainer.draw(8), 8)
    errors = {n: value for n, value, _ in state.take_first_pass()}
    assert len(errors) and all(math.isfinite(value) for value in errors.values())
    assert losses.shape == (8,)


def test_the_metric_of_the_sampler_is_that_of_the_data_also_if_the_loss_is_its_square():
    found = []
    for more in ({}, {"loss": "huber"}):
        with torch.random.fork_rng():
            torch.manual_seed(5)
            trainer, state = trainer_of(
                study_with({"data": 1.0}, training={"metric": "absolute", **more})
            )
            trainer.wait_for_first_samples()
            trainer.learn(trainer.draw(8), 8)
        found.append([error for _, error, _ in state.take_first_pass()])
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_commands_say_what_a_study_without_a_solver_needs():
    with pytest.raises(StudyError, match="melissa-gen train STUDY"):
        solver_command(study_with({"data": 0}, simulation={"command": []}))
    for study in (study_of(), study_with({})):
        with pytest.raises(StudyError, match="without --data FILE, train needs a study without"):
            train_alone(study, None, None)


def test_training_without_a_solver_has_no_statistics_and_no_record():
    study = study_with({"data": 0}, simulation={"command": []}, statistics={"fields": ["u"]})
    with pytest.raises(StudyError, match="remove the section statistics"):
        train_alone(study, None, None)
    study = study_with({"data": 0}, simulation={"command": []}, record={})
    with pytest.raises(StudyError, match="remove the section record"):
        train_alone(study, None, None)
    idle = study_with(
        {"data": 0}, simulation={"command": []}, training={"enabled": False}, statistics={}
    )
    with pytest.raises(StudyError, match=r"training\.enabled is false, so that there is nothing"):
        train_alone(idle, None, None)


def test_a_rank_without_data_takes_part():
    trainer, _ = trainer_of(study_with({}))
    trainer.learn(None, 8)
    assert all((w.grad == 0).all() for w in trainer.surrogate.parameters())


def starts_as_a_sine(u, parameters, coordinates):
    return {"u": torch.sin(coordinates["x"]) + coordinates["t"] * u["u"]}


def another_field(u, parameters, coordinates):
    return {"v": u["u"]}


def test_a_constraint_holds_by_construction_also_in_a_saved_surrogate(tmp_path):
    study = study_with({"data": 0, "constraint": f"{HERE}:starts_as_a_sine"})
    trainer, _ = trainer_of(study)
    trainer.wait_for_first_samples()
    batch = trainer.draw(8)
    losses = [float(trainer.learn(batch, 8).mean()) for _ in range(30)]
    assert losses[-1] < losses[0]
    save(trainer.model, tmp_path / "model")
    loaded = load(tmp_path / "model")
    x = np.linspace(0, 1, 5)
    found = loaded.predict({"a": 0.3}, 0.0, x[:, None])["u"]
    np.testing.assert_allclose(found, np.sin(x), atol=1e-5)
    whole = loaded.predict({"a": 0.3}, 2.0)["u"]
    np.testing.assert_allclose(whole, trainer.model.predict({"a": 0.3}, 2.0)["u"], atol=1e-6)
    with pytest.raises(StudyError, match=r"constraint returns .*; it must return all fields of u"):
        try_surrogate(study_with({"constraint": f"{HERE}:another_field"}))


def test_ranks_draw_their_own_points():
    found = []
    for rank in range(2):
        task = build_task(study_with({"collocation": "r3"}))
        torch.manual_seed(0)
        surrogate = build_surrogate(study_with({}), task)
        torch.manual_seed(1 + rank)
        task.start(surrogate, task.example(surrogate))
        found.append(task.state()["population"])
    assert found[0] != found[1]


def test_the_exact_solution_is_the_validation_set(tmp_path):
    study = study_with(
        {"data": 0, "solution": f"{HERE}:exact"}, training={"validation": {"simulations": 3}}
    )
    write_solution(study, tmp_path / "validation.h5")
    x = (np.arange(6) + 0.5) / 6
    with Dataset(tmp_path / "validation.h5") as data:
        assert len(data) == 3 and data.time_steps == 4
        for row in range(3):
            a = data.parameters[row, 0]
            wanted = np.sin(x - a * np.arange(4)[:, None])
            np.testing.assert_allclose(data.read(row)["u"], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "sections", "sentence"),
    [
        ({"residual": "heet"}, {}, "residual is 'heet': legal are burgers, convection, heat"),
        ({"residual": f"{HERE}:none"}, {}, "but it has no 'none'"),
        ({"residual": f"{HERE}:flat"}, {}, "returns \\(\\) for 32 points; it must be a tensor"),
        ({"residual": f"{HERE}:undefined"}, {}, "residual returns NaN or infinity within"),
        ({"residual": f"{HERE}:detached"}, {}, "residual has no gradient: it does not depend on u"),
        ({"residual": f"{HERE}:misspelled"}, {}, "residual raises KeyError \\(there is no 'v'\\)"),
        (
            {"collocation": "r4"},
            {},
            "the method 'r4'; legal are uniform, rad, rar_d, r3, sobol, ha",
        ),
        ({"collocation": {"method": "sobol", "a": 1}}, {}, "arguments.collocation: .*sobol"),
        ({"collocation": {"method": "pool", "every": 0}}, {}, "every is 0: legal are whole"),
        ({"collocation": {"method": "r3", "every": 3}}, {}, "does not match method r3"),
        ({"conditions": [{"at": {"t": 0}}]}, {}, "must have either function or periodic"),
        ({"conditions": [{"periodic": "z"}]}, {}, "the coordinate 'z'; legal are t, x"),
        ({"conditions": [{"periodic": "x", "wieght": 1}]}, {}, "'wieght'.*mean 'weight'"),
        ({"collocation": 3}, {}, "collocation is 3: legal are the name of a rule"),
        ({"collocation": {"method": "rad", "every": 0}}, {}, "every is 0: legal are whole numbers"),
        ({"collocation": {"method": "rad", "pool": 1e5}}, {}, "pool is 100000.0: legal are whole"),
        ({"collocation": {"method": "rad", "pool": 9}}, {}, "pool is 9: legal are .* from 32"),
        ({"collocation": {"method": "r3", "shift": "a"}}, {}, "shift is a: legal are numbers"),
        ({"collocation": {"method": "rar_d", "largest": 3}}, {}, "largest is 3: legal are .* 32"),
        ({"conditions": 3}, {}, "conditions is 3: legal are lists"),
        ({"conditions": [{"periodic": "x", "points": 0}]}, {}, "points is 0: legal are whole"),
        ({"conditions": [{"periodic": "x", "at": 3}]}, {}, "at is 3: legal is a mapping"),
        ({"conditions": [{"periodic": "x", "at": {"x": 0}}]}, {}, "no value of x in at"),
        ({"points": True}, {}, "points is True: legal are whole numbers from 1"),
        ({"residual": 3}, {}, "residual is 3: legal are a name"),
        ({"data": -1}, {}, "arguments.data is -1: legal are numbers from 0"),
        ({}, {"training": {"precision": "bf16"}}, "training.precision bf16 is not available"),
        ({}, {"training": {"compile": True}}, "training.compile is not available"),
        ({}, {"simulation": {"command": []}}, "there is no data: set .*arguments.data to 0"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, sections, sentence):
    with pytest.raises(StudyError, match=sentence):
        try_surrogate(study_with(arguments, **sections))


def test_other_tasks_need_a_solver():
    study = study_with({"data": 0}, simulation={"command": []})
    try_surrogate(study)
    given = study.model_dump(by_alias=True)
    given["surrogate"]["task"] = "pointwise"
    with pytest.raises(ValueError, match=r"simulation\.command is missing; name the solver"):
        Study.model_validate(given)


def test_a_validation_without_a_solver_needs_a_solution(tmp_path):
    study = study_with({"data": 0}, training={"validation": {"simulations": 2}})
    with pytest.raises(StudyError, match="neither a solver nor an exact solution"):
        write_solution(study, tmp_path / "validation.h5")


def test_a_batch_that_is_not_finite_leaves_the_rules_usable():
    gated = R3(4, 2, CPU, causal=True)
    shift = gated.shift
    gated.learn(torch.tensor([1.0, math.nan, 1.0, math.inf]))
    assert gated.shift == shift and len(gated.draw(None)) == 4
    for wrong in (math.nan, math.inf):
        rule = Rad(4, 2, CPU, every=1, pool=50)
        rule.draw(None)
        points = rule.draw(lambda places, wrong=wrong: torch.where(places[:, 0] > 0.5, wrong, 1.0))
        assert len(points.unique(dim=0)) == 4


@pytest.mark.parametrize(("rows", "points"), [(8, 3), (3, 8), (4, 4)])
def test_the_mean_of_the_rows_is_that_of_the_points(rows, points):
    task = build_task(study_with({"data": 0, "residual": f"{HERE}:time", "points": points}))
    surrogate = build_surrogate(study_with({}), task)
    given = Rows(torch.rand(rows, 2, dtype=torch.float64), {})
    (term,) = task.compare(surrogate, surrogate.network, given, 0)
    means = term.members.detach().flatten()
    assert (means > 0).all()
    if points <= rows:
        assert float(means.mean()) == pytest.approx(float(means[:points].mean()), rel=1e-5)


def test_the_promised_points_are_those_of_the_largest_batch():
    def points_of(**arguments):
        study = study_with({"data": 0, "points": 10, **arguments})
        task = build_task(study)
        build_surrogate(study, task)
        return task.points_of_batch(4)

    plain = points_of()
    assert points_of(collocation={"method": "rar_d", "largest": 500}) == plain + 490
    assert points_of(conditions=[{"periodic": "x", "points": 7}]) == plain + 14
    assert points_of(data=1.0, data_points=6) == plain + 24


def test_a_rank_that_is_new_after_a_resume_draws_points_of_its_own():
    study = study_with({"collocation": {"method": "r3", "causal": True}})
    first, _ = trainer_of(study)
    first.wait_for_first_samples()
    first.learn(first.draw(8), 8)
    state = first.state()
    before = state["learner"]["task"]

    def continued(state):
        trainer, _ = trainer_of(study)
        trainer.restore(state)
        trainer.learn(trainer.draw(8), 8)
        after = trainer.state()["learner"]["task"]
        assert after["shift"] > before["shift"] > -0.5
        return [point for point in after["population"] if point in before["population"]]

    assert continued(state)
    assert not continued(state | {"random": None, "cuda_random": None})

"""The gest-api standard in both directions: samplers in libEnsemble, and an external generator in a study."""

import numpy as np
import pytest

from melissa_gen.errors import StudyError
from melissa_gen.sampling import PRIOR, Evidence, Prior, create

gest_api = pytest.importorskip("gest_api", reason="the adapters need the package gest-api")
libensemble = pytest.importorskip("libensemble", reason="one side of the test is libensemble")

from gest_api.vocs import VOCS  # noqa: E402

from melissa_gen.sampling.gest_generator import SamplerGenerator  # noqa: E402

UNIFORM = "libensemble.gen_classes.sampling.UniformSample"


class Hardest:
    """A generator that proposes points near the most difficult known point and remembers its own points."""

    def __init__(self, vocs, width=0.01, seed=3):
        self.names, (self.objective,) = list(vocs.variables), vocs.objectives
        self.width, self.rng = width, np.random.default_rng(seed)
        self.given, self.told = [], []

    def suggest(self, num_points):
        best = max(self.told, key=lambda result: result[self.objective])
        center = np.array([best[name] for name in self.names])
        points = []
        for _ in range(min(num_points, 3)):  # fewer than asked, as some do
            row = np.clip(center + self.rng.normal(0, self.width, len(center)), 0, 1)
            points.append(dict(zip(self.names, row, strict=True)) | {"_id": len(self.given)})
            self.given.append(row)
        return points

    def ingest(self, results):
        for result in results:
            if "_id" in result:
                row = [result[name] for name in self.names]
                np.testing.assert_allclose(row, self.given[result["_id"]], atol=1e-9)
        self.told += results


@pytest.fixture
def here(monkeypatch):
    """This module under its name, as an installed package would be."""
    import sys

    module = type(sys)("generators")
    module.Hardest, module.nothing = Hardest, 3
    monkeypatch.setitem(sys.modules, "generators", module)


def vocs(**more):
    return VOCS(
        variables={"x0": [-3.0, 3.0], "x1": [-2.0, 2.0]}, objectives={"f": "EXPLORE"}, **more
    )


@pytest.mark.parametrize("method", ["uniform", "pool"])
def test_the_generator_implements_the_standard(method):
    generator = SamplerGenerator(vocs(constants={"k": 5.0}), method, seed=4, batch=12)
    assert isinstance(generator, gest_api.Generator) and generator.returns_id
    for round_number in range(4):
        points = generator.suggest()
        assert [p["_id"] for p in points] == list(range(12 * round_number, 12 * round_number + 12))
        assert all(p["k"] == 5.0 and -3 <= p["x0"] <= 3 and -2 <= p["x1"] <= 2 for p in points)
        for point in points:
            point["f"] = np.exp(-4.0 * ((point["x0"] - 2.0) ** 2 + point["x1"] ** 2))
        generator.ingest(points)
    many = generator.suggest(60)
    near = np.mean([abs(p["x0"] - 2.0) < 1.0 and abs(p["x1"]) < 1.0 for p in many])
    assert near > 0.5 if method == "pool" else near < 0.4
    assert generator.sampler.diagnostics()["generation"] == 4


def test_results_of_other_generators_failures_and_invalid_values():
    generator = SamplerGenerator(vocs(), "pool")
    first = generator.suggest(2)
    generator.ingest([first[0] | {"f": float("nan")}, {"x0": 0.0, "x1": 1.0, "f": 2.0}])
    found = generator.sampler.diagnostics()
    assert (found["records"], found["failed"]) == (2.0, 1.0)
    with pytest.raises(ValueError, match="_id 99"):
        generator.ingest([first[0] | {"_id": 99, "f": 1.0}])
    with pytest.raises(ValueError, match="must be at least 0"):
        generator.ingest([first[1] | {"f": -1.0}])


@pytest.mark.parametrize(
    "wrong, text",
    [
        ({"objectives": {"f": "MINIMIZE"}}, "MINIMIZE"),
        ({"objectives": {"f": "EXPLORE", "g": "EXPLORE"}}, "one objective"),
        ({"constraints": {"c": ["LESS_THAN", 0.0]}}, "constraints"),
        ({"variables": {"x": "CONTEXTUAL"}}, "contextual"),
    ],
)
def test_unsupported_operations_are_reported(wrong, text):
    given = {"variables": {"x": [0.0, 1.0]}, "objectives": {"f": "EXPLORE"}}
    with pytest.raises(ValueError, match=text):
        SamplerGenerator(VOCS(**(given | wrong)))


def test_discrete_variables_keep_their_values():
    given = VOCS(variables={"x": [0.0, 1.0], "n": {2, 4, 8}}, objectives={"f": "EXPLORE"})
    points = SamplerGenerator(given, "sobol").suggest(16)
    assert {point["n"] for point in points} == {2.0, 4.0, 8.0}


def norm(H, persis_info, sim_specs, _):
    """The simulation of libEnsemble's sampling examples, as a difficulty."""
    out = np.zeros(len(H), dtype=sim_specs["out"])
    out["f"] = np.hypot(H["x0"], H["x1"])
    return out, persis_info


def test_libensemble_samples_with_ours(tmp_path, monkeypatch):
    """Its sampling example: a generator beside the manager, two workers, 200 points and more."""
    from libensemble import Ensemble
    from libensemble.alloc_funcs.start_only_persistent import only_persistent_gens
    from libensemble.specs import AllocSpecs, ExitCriteria, GenSpecs, LibeSpecs, SimSpecs

    monkeypatch.chdir(tmp_path)
    generator = SamplerGenerator(vocs(), "pool", seed=1)
    ensemble = Ensemble(
        libE_specs=LibeSpecs(
            comms="threads",
            nworkers=2,
            gen_on_manager=True,
            disable_log_files=True,
            save_every_k_sims=10_000,
            safe_mode=False,
        ),
        sim_specs=SimSpecs(sim_f=norm, inputs=["x0", "x1"], out=[("f", float)]),
        gen_specs=GenSpecs(generator=generator, vocs=vocs(), initial_batch_size=20, batch_size=10),
        alloc_specs=AllocSpecs(alloc_f=only_persistent_gens),
        exit_criteria=ExitCriteria(gen_max=200),
    )
    history, _, flag = ensemble.run()
    assert flag == 0 and len(history) >= 200
    done = history[history["sim_ended"]]
    np.testing.assert_allclose(done["f"], np.hypot(done["x0"], done["x1"]))
    assert generator.sampler.generation >= 5
    # It has learned where the norm is large: in the corners.
    assert done["f"][-60:].mean() > done["f"][:20].mean() + 0.2


PRIOR_2D = Prior.from_mapping(
    {
        "a": {"distribution": "log_uniform", "low": 0.1, "high": 10.0},
        "b": {"low": -1.0, "high": 1.0},
    }
)


def taught(sampler, rounds=3):
    for first in range(0, 20 * rounds, 20):
        found = sampler.suggest(20)
        sampler.ingest(
            [
                Evidence(first + i, point, float(np.exp(-((point[1] - 0.8) ** 2))))
                for i, point in enumerate(found.points)
            ]
        )
    sampler.update()
    return sampler


def test_a_generator_of_libensemble_draws_here():
    sampler = taught(create("external", PRIOR_2D, 1, arguments={"generator": UNIFORM}))
    found = sampler.suggest(50)
    own = np.array(found.method) == "external"
    assert own.sum() == 45 and set(np.array(found.method)[~own]) == {PRIOR}
    assert PRIOR_2D.contains(found.points).all() and np.isnan(found.log_density).all()
    assert sampler.diagnostics()["reported"] == 60


@pytest.mark.usefixtures("here")
def test_a_generator_receives_difficulties_of_its_own_points():
    arguments = {"generator": "generators.Hardest", "options": {"width": 0.02}}
    sampler = taught(create("external", PRIOR_2D, 1, arguments=arguments), rounds=4)
    points = sampler.suggest(40).points
    assert np.median(np.abs(points[:, 1] - 0.8)) < 0.1
    again = create("external", PRIOR_2D, 1, arguments=arguments)
    again.restore(sampler.state())
    np.testing.assert_array_equal(again.suggest(9).points, sampler.suggest(9).points)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "generator, text",
    [
        (None, "is needed"),
        ("nowhere.Generator", "can't be imported"),
        ("generators.nothing", "not a class with the methods"),
        ("generators.Missing", "can't be imported"),
    ],
)
def test_a_wrong_generator_is_named(generator, text):
    with pytest.raises(StudyError, match=text):
        create("external", PRIOR_2D, 1, arguments={"generator": generator})
    with pytest.raises(StudyError, match="Hardest can't be created: TypeError"):
        arguments = {"generator": "generators.Hardest", "options": {"wide": 1}}
        create("external", PRIOR_2D, 1, arguments=arguments)

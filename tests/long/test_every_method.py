"""Sampling methods in whole studies: `melissa-gen run simulations/heat/study.yaml --set sampler.method=NAME`.

`tests/unit/server/test_every_method.py` runs each method in the server's proposal queue, and `tests/mpi` runs studies
with sobol, uniform_resampled, breed, twisted and diffusion_posterior. The methods here depend on a part of the server
that those tests do not cover.
"""

from pathlib import Path

import pytest

pytestmark = [pytest.mark.mpi, pytest.mark.long]

HEAT = Path(__file__).parents[2] / "simulations" / "heat" / "study.yaml"
SMALL = {
    "simulation.command": "[python, heat.py, --mesh, '16', --steps, '10']",
    "simulation.count": 40,
    "simulation.time_steps": 10,
    "simulation.fields.temperature.shape": "[16, 16]",
    "surrogate.arguments.hidden": "[16]",
    "training.batch_size": 4,
    "training.draws_per_sample": 8,
    "training.validation.simulations": 0,
    "launcher.report": "false",
    "reservoir.capacity": 40,
    "reservoir.watermark": 5,
    "sampler.generation_size": 6,
    "sampler.ramp_simulations": 1,
}
METHODS = {
    # A list of points on the command line.
    "table": {"points": "[[300, 300, 300, 300, 300], [100, 200, 300, 400, 500]]"},
    # A generator of another library, which the server imports.
    "external": {"generator": "libensemble.gen_classes.sampling.UniformSample"},
    # Selects the eviction policy of the reservoir.
    "r3": {},
    # Selects from a pool as soon as there is evidence.
    "rad": {},
    # Trains a network while the surrogate is trained.
    "gan": {"training_steps": 20},
}
ADAPTS_AT_ONCE = {"rad", "table"}
"""The others may still train when the last of so few simulations is requested."""


@pytest.mark.parametrize("method", METHODS)
def test_a_study_with_the_method(module_runs, method):
    settings = {**SMALL, "sampler.method": method}
    settings |= {f"sampler.arguments.{key}": value for key, value in METHODS[method].items()}
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    run = module_runs.run(HEAT, *words, run_dir=module_runs.folder / method)
    run.assert_finished()
    assert run.summary["sampler"]["method"] == method
    proposed = {line["method"] for line in run.simulations().values()}
    assert proposed <= {method, "prior"}
    assert method not in ADAPTS_AT_ONCE or method in proposed
    assert method != "r3" or proposed == {"prior"}

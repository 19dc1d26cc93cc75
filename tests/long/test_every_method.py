"""Each sampling method in a whole study: `melissa-gen run simulations/heat/study.yaml --set sampler.method=NAME`."""

from pathlib import Path

import pytest

from melissa_gen.sampling import METHODS

pytestmark = [pytest.mark.mpi, pytest.mark.long]

HEAT = Path(__file__).parents[2] / "simulations" / "heat" / "study.yaml"
SMALL = {
    "simulation.command": "[python, heat.py, --mesh, '16', --steps, '10']",
    "simulation.count": 18,
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
    "sampler.ramp_generations": 1,
}
ARGUMENTS = {
    "table": {"points": "[[300, 300, 300, 300, 300], [100, 200, 300, 400, 500]]"},
    "external": {"generator": "libensemble.gen_classes.sampling.UniformSample"},
    "phased": {"phase": "6"},
}
DESIGNS = {"uniform", "sobol", "halton", "lhs", "grid", "uniform_resampled", "r3"}
QUICK = {"pool", "breed", "diffusion_posterior", "twisted", "rad", "rar_d", "table"}
"""Others may still be learning when the last of so few simulations is asked for."""


@pytest.mark.parametrize("method", METHODS)
def test_a_study_with_each_method(module_runs, method):
    settings = {**SMALL, "sampler.method": method}
    settings |= {
        f"sampler.arguments.{key}": value for key, value in ARGUMENTS.get(method, {}).items()
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    run = module_runs.run(HEAT, *words, run_dir=module_runs.folder / method)
    run.assert_finished()
    assert run.summary["sampler"]["method"] == method
    proposed = {line["method"] for line in run.simulations().values()}
    assert proposed <= {method, "prior"}
    assert method not in QUICK or method in proposed
    assert method not in DESIGNS or proposed == {"prior"}

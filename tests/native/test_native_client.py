"""The C and Fortran client library: its bytes, its behaviour against a server, the solvers built on it."""

import json
import os
import signal
import subprocess
import sys
from itertools import product

import numpy as np
import pytest

from melissa_gen.protocol.failures import Failure

from .building import BIN, HERE, MPIRUN, NATIVE, ROOT, STRICT, flags, need, need_headers, run

pytestmark = pytest.mark.mpi

STUDY = ROOT / "simulations" / "heat" / "study.yaml"
VECTORS = ROOT / "tests" / "unit" / "protocol" / "vectors.json"
TEMPERATURES = ("initial", "left", "right", "bottom", "top")

# What probe.c expects.
FIELDS = {"a": ("float32", (4, 6)), "b": ("float64", (3,))}
SIMULATIONS = [(0.5, 10.0), (1.5, 20.0), (2.5, 30.0)]


def start(server, *command, **environment):
    return subprocess.run(
        [str(part) for part in command],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=server.environment | environment,
    )


def serve_probe(serve, **options):
    return serve(FIELDS, 3, SIMULATIONS, ("p", "q"), **options)


def assert_whole(server, simulations=range(3)):
    """Every sample of these simulations arrived as probe.c made it, although it reuses its arrays."""
    for simulation, step in product(simulations, range(3)):
        sample = server.samples[simulation, step]
        first = 1000 * simulation + 100 * step
        np.testing.assert_array_equal(sample["a"], first + np.arange(24.0).reshape(4, 6))
        np.testing.assert_array_equal(sample["b"], SIMULATIONS[simulation][0] + step)


def reasons(server):
    return [str(Failure.received(failed.code, failed.values)) for failed in server.failed]


def cflags(module):
    return run("pkg-config", "--cflags", "--libs", module).split()


@pytest.fixture(scope="module")
def vectors_program(tmp_path_factory):
    need("cc", "gcc")
    need_headers()
    program = tmp_path_factory.mktemp("vectors") / "vectors"
    source = NATIVE / "src"
    names = ("failure.c", "text.c", "wire_read.c", "wire_write.c")
    files = (HERE / "vectors.c", *(source / name for name in names))
    run("cc", "-std=c11", "-g", *STRICT, f"-I{source}", *files, *cflags("libcjson"), "-o", program)
    return program


def test_messages_have_the_bytes_of_the_shared_vectors(vectors_program):
    text = VECTORS.read_text(encoding="utf-8")
    vectors = json.loads(text)
    results = json.loads(run(vectors_program, input=text))
    written = 0
    for vector in vectors["messages"]:
        result = results[vector["name"]]
        assert "error" not in result, vector["name"]
        if "hex" in result:
            assert result["hex"] == vector["hex"], vector["name"]
            written += 1
        elif vector["message"] != "Alive":
            assert result["body"] == vector["body"], vector["name"]
    assert written >= 8
    assert results["owners"] == [owner for *_, owner in vectors["owners"]]
    assert results["sentences"] == [failure["sentence"] for failure in vectors["failures"]]
    for vector in vectors["refused"]:
        result = results[vector["name"]]
        if "error" in result:
            assert vector["reason"] in result["error"], vector["name"]
        else:  # a kind that only servers read
            assert result["body"]["not for clients"] in (9, 99), vector["name"]


def test_damaged_messages_are_read_without_a_byte_too_far(vectors_program):
    valgrind = need("valgrind", "valgrind")
    vectors = json.loads(VECTORS.read_text(encoding="utf-8"))
    rng = np.random.default_rng(1)
    damaged = []
    for vector in vectors["messages"]:
        raw = bytes.fromhex(vector["hex"])
        for n in range(20):
            bad = bytearray(raw[: rng.integers(len(raw) + 1)] if n % 2 else raw)
            if bad:
                bad[rng.integers(len(bad))] = rng.integers(256)
            damaged.append({"name": f"{vector['name']}-{n}", "hex": bad.hex()})
    text = json.dumps({"messages": [], "refused": damaged, "owners": [], "failures": []})
    run(valgrind, "-q", "--error-exitcode=9", "--leak-check=full", vectors_program, input=text)


WAYS = {
    "ipc": {},
    "tcp": {"ipc": False},
    "shared": {"shared": True},
    "refused": {"shared": True, "maps": False},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_client_sends_what_its_solver_computed(serve, probe, way):
    server = serve_probe(serve, ranks=2, credit=1, **WAYS[way])
    done = start(server, probe, "good")
    assert (done.returncode, done.stderr) == (0, "")
    server.close()
    assert_whole(server)
    assert server.finalized == {(s, 0, r): 3 for s, r in product(range(3), range(2))}
    assert server.failed == []
    assert (server.hello.job, server.hello.ranks) == ("job", 1)


def test_a_client_is_clean_under_valgrind(serve, probe):
    valgrind = need("valgrind", "valgrind")
    checks = ("-q", "--error-exitcode=9", "--leak-check=full", "--show-leak-kinds=all")
    for mode in ("good", "nan", "unknown-send", "half-step", "wrong-shape"):
        server = serve_probe(serve, ranks=2, shared=mode != "nan", maps=mode == "good")
        done = start(server, valgrind, *checks, probe, mode)
        assert done.returncode < 9, done.stderr
        assert "==" not in done.stderr, done.stderr


def test_the_header_serves_cplusplus(serve, without_mpi, tmp_path):
    compiler = need("c++", "g++")
    program = tmp_path / "probe"
    options = (*STRICT, "-x", "c++", HERE / "probe.c", *flags(without_mpi))
    run(compiler, *options, "-o", program)
    server = serve_probe(serve)
    assert start(server, program).returncode == 0
    server.close()
    assert_whole(server)


def test_nan_names_simulation_and_step_and_the_next_one_goes_on(serve, probe):
    server = serve_probe(serve)
    done = start(server, probe, "nan")
    reason = (
        "simulation 1, time step 2: "
        "field 'a' has 2 values that are NaN, infinite or too large for float32"
    )
    assert done.stdout.splitlines() == [f"2 {reason}", "0 no error", "closed 0"]
    server.close()
    assert [(f.job, f.simulation, f.step) for f in server.failed] == [("job", 1, 2)]
    assert reasons(server) == [reason]
    assert (1, 2) not in server.samples
    assert_whole(server, (0, 2))
    assert {simulation for simulation, _, _ in server.finalized} == {0, 2}


@pytest.mark.parametrize(
    ("mode", "sentence"),
    [
        ("overflow", "field 'a' has 1 values that are NaN, infinite or too large for float32"),
        ("unknown-send", "simulation 0, time step 0: unknown field 'c'; declared: a, b"),
        ("twice", "simulation 0, time step 0: the field 'b' is missing ('a' was sent twice)"),
        ("wrong-count", "field 'a' has 23 values; this rank declared the extent (4, 6)"),
        ("half-step", "simulation 0, time step 2: the field 'b' is missing"),
        ("short", "simulation 0 ended after 2 of 3 time steps"),
        ("too-many", "time step 3: the study has 3 time steps; this one is too many"),
    ],
)
def test_what_can_not_be_trained_on_is_reported_as_failed(serve, probe, mode, sentence):
    server = serve_probe(serve)
    done = start(server, probe, mode)
    assert done.returncode == 2
    assert sentence in done.stdout
    server.close()
    (failed,) = server.failed
    assert failed.simulation == 0
    assert sentence in reasons(server)[0]
    assert server.finalized == {}


@pytest.mark.parametrize(
    ("mode", "sentence"),
    [
        ("unknown-field", "field 'aa' is not in the study; it declares a, b"),
        ("wrong-shape", "field 'a' has the global shape (4, 7); the study says (4, 6)"),
        ("outside", "field 'a': the block start (2, 0), extent (4, 6) is not inside the shape"),
        ("undeclared", "the fields b of the study are not declared; declare every field before"),
        ("unknown-parameter", "the study has no parameter 'r'; it has p, q"),
    ],
)
def test_wrong_use_is_answered_with_a_sentence(serve, probe, mode, sentence):
    server = serve_probe(serve)
    done = start(server, probe, mode)
    assert done.returncode == 1
    assert sentence in done.stdout
    server.close()
    (failed,) = server.failed
    assert failed.simulation == (0 if mode == "unknown-parameter" else -1)
    # Only the server looks for a similar name.
    assert sentence in reasons(server)[0].replace(" (did you mean 'a'?)", "")


def test_a_solver_gives_a_simulation_up_and_goes_on(serve, probe):
    server = serve_probe(serve)
    assert start(server, probe, "fail").returncode == 0
    server.close()
    assert [(f.simulation, f.step) for f in server.failed] == [(0, 1)]
    assert reasons(server) == ["diverged"]
    assert_whole(server, (1, 2))


def test_closing_in_the_middle_is_a_failure_and_after_the_end_is_not(serve, probe):
    server = serve_probe(serve)
    assert "closed 0" in start(server, probe, "leave").stdout
    server.close()
    assert server.finalized == {(0, 0, 0): 3}
    server = serve({**FIELDS}, 4, SIMULATIONS, ("p", "q"))
    assert "closed 2" in start(server, probe, "leave-early").stdout
    server.close()
    assert reasons(server) == ["simulation 0 ended after 3 of 4 time steps"]


def test_one_simulation_per_process(serve, probe):
    server = serve_probe(serve)
    assert start(server, probe, "good", MELISSA_GEN_SIMULATION="2").returncode == 0
    server.close()
    assert {simulation for simulation, _ in server.samples} == {2}
    done = start(server, probe, "good", MELISSA_GEN_SIMULATION="two")
    assert "MELISSA_GEN_SIMULATION is 'two': not a number" in done.stdout


def test_a_silent_server_is_an_error_also_for_a_client_without_credit(serve, probe):
    server = serve_probe(serve, mute_after=1, heartbeat_timeout=0.5)
    done = start(server, probe, "good")
    assert done.returncode == 3
    assert "3 the training server has been silent for" in done.stdout
    server.close()
    assert len(server.samples) == 2  # its credit
    assert server.beats  # a client that lives shorter may end before its first


@pytest.mark.slow
def test_a_solver_that_never_returns_is_ended_when_the_server_is_lost(serve, probe):
    done = start(serve_probe(serve, mute_after=1, heartbeat_timeout=0.5), probe, "stuck")
    assert done.returncode == -signal.SIGTERM
    assert "ending: the training server has been silent for" in done.stderr


@pytest.mark.slow
def test_a_lost_server_ends_all_ranks(serve, heat_c):
    fields = {"temperature": ("float32", (16, 16))}
    names = [f"{name}_temperature" for name in TEMPERATURES]
    server = serve(fields, 100, [(300.0,) * 5], names, mute_after=3, heartbeat_timeout=0.5)
    done = start(server, MPIRUN, "-n", 2, heat_c, "--mesh", 16)
    assert done.returncode != 0
    assert "the training server has been silent for" in done.stderr  # said by either thread


def test_a_server_that_stops_says_why(serve, probe):
    server = serve_probe(serve, stop="the study is over", mute_after=None, credit=1)
    done = start(server, probe, "good")
    assert done.returncode in (0, 3)  # noticed while asking (all done) or while sending
    if done.returncode:
        assert "3 the study is over" in done.stdout


def test_a_refusal_and_a_missing_server_are_told(serve, probe, tmp_path):
    server = serve_probe(serve, refuse="a stale peer of epoch 1; this is epoch 2")
    assert "1 a stale peer of epoch 1; this is epoch 2" in start(server, probe).stdout
    bare = {name: value for name, value in os.environ.items() if "MELISSA" not in name}

    def sentence(**more):
        return subprocess.run(
            [probe], check=False, capture_output=True, text=True, env=bare | more
        ).stdout

    assert "MELISSA_GEN_SERVER is not set" in sentence()
    absent = tmp_path / "absent.json"
    assert f"1 {absent}: can't read the server's contact file: No such file" in sentence(
        MELISSA_GEN_SERVER=str(absent)
    )
    good = json.loads(server.path.read_text())
    for damage in ({"token": "12"}, {"epoch": -1}, {"curve": {}}, {"data": [1]}, {"host": None}):
        absent.write_text(json.dumps(good | damage))
        assert "is not a contact file" in sentence(MELISSA_GEN_SERVER=str(absent)), damage
    absent.write_text("{" * 100_000)
    assert "is not a contact file" in sentence(MELISSA_GEN_SERVER=str(absent))


def heat_server(serve, mesh, steps):
    rng = np.random.default_rng(3)
    fields = {"temperature": ("float64", (mesh, mesh))}
    names = [f"{name}_temperature" for name in TEMPERATURES]
    return serve(fields, steps, rng.uniform(100.0, 500.0, (2, 5)), names, ranks=2)


def heat_fields(serve, processes, mesh, theta, *command):
    steps = 6
    server = heat_server(serve, mesh, steps)
    options = ("--mesh", mesh, "--steps", steps, "--time-step", "0.003", "--theta", theta)
    done = start(server, MPIRUN, "-n", processes, *command, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    server.close()
    assert server.failed == []
    assert server.hello.ranks == processes
    assert set(server.finalized) == set(product(range(2), range(processes), range(2)))
    return np.stack([server.samples[key]["temperature"] for key in sorted(server.samples)])


@pytest.fixture(scope="module")
def python_heat():
    return (sys.executable, ROOT / "simulations" / "heat" / "heat.py")


@pytest.mark.parametrize("language", ["c", "fortran"])
@pytest.mark.parametrize(("processes", "mesh", "theta"), [(1, 16, 1), (2, 25, 0.5), (3, 16, 0.7)])
def test_heat_gives_the_fields_of_python(
    serve, request, python_heat, language, processes, mesh, theta
):
    program = request.getfixturevalue(f"heat_{language}")
    found = heat_fields(serve, processes, mesh, theta, program)
    expected = heat_fields(serve, processes, mesh, theta, *python_heat)
    assert found.shape == expected.shape == (12, mesh, mesh)
    np.testing.assert_allclose(found, expected, rtol=1e-11)


@pytest.mark.parametrize("language", ["c", "fortran"])
def test_a_mistake_on_heats_command_line_ends_all_ranks(request, language):
    program = request.getfixturevalue(f"heat_{language}")
    done = subprocess.run(
        [MPIRUN, "-n", "2", program, "--mesh", "minus"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.count("'minus' is not a positive") == 1


def test_fortran_sections_and_mpif_h(serve, with_fortran, tmp_path):
    program = tmp_path / "probe"
    options = ("-O2", "-J", tmp_path, *flags(with_fortran.prefix, "melissa_gen_fortran"))
    run(with_fortran.mpifort, HERE / "probe.f90", *options, "-o", program)
    fields = {"u": ("float32", (6, 4, 5)), "v": ("float64", (2,))}
    server = serve(fields, 2, [(0.25,)], ("p",))
    done = start(server, MPIRUN, "-n", "2", program)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    server.close()
    k, j, i = np.meshgrid(*(np.arange(1, n + 1) for n in (6, 4, 5)), indexing="ij")
    for step in range(2):
        sample = server.samples[0, step]
        np.testing.assert_array_equal(sample["u"], 1000 * (step + 1) + 100 * k + 10 * j + i)
        np.testing.assert_array_equal(sample["v"], [0.25, 1.25])
    assert server.finalized == {(0, 0, 0): 2, (0, 1, 0): 2}


STUBS = {
    "c": """
        static double *solve_one_step(double left) {
            static double u[4000]; for (int i = 0; i < 4000; i++) u[i] = left + i % 80; return u; }
    """,
    "fortran": """
        subroutine solve_one_step(left, u)
            real(8) :: left, u(80, 50)
            do i = 1, 80
                u(i, :) = left + i - 1
            end do
        end subroutine solve_one_step
    """,
}


@pytest.mark.parametrize("language", ["c", "fortran"])
def test_the_readmes_example_runs_as_printed(serve, request, tmp_path, language):
    text = (NATIVE / "README.md").read_text(encoding="utf-8")
    example = text.split(f"```{language}\n")[1].split("```")[0]
    program = tmp_path / "solver"
    if language == "c":
        built = request.getfixturevalue("with_mpi")
        source, stub = tmp_path / "solver.c", tmp_path / "stub.h"
        files, compiler = ("-include", stub, source), built.mpicc
    else:
        built = request.getfixturevalue("with_fortran")
        source, stub = tmp_path / "solver.f90", tmp_path / "stub.f90"
        files, compiler = (stub, source), built.mpifort
    source.write_text(example)
    stub.write_text(STUBS[language])
    module = "melissa_gen" if language == "c" else "melissa_gen_fortran"
    run(compiler, *files, *flags(built.prefix, module), "-o", program)
    server = serve({"temperature": ("float32", (100, 80))}, 100, [(250.0,)], ("left_temperature",))
    done = start(server, MPIRUN, "-n", "2", program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    server.close()
    assert len(server.samples) == 100
    expected = np.broadcast_to(250.0 + np.arange(80.0), (100, 80))
    for sample in server.samples.values():
        np.testing.assert_array_equal(sample["temperature"], expected)


@pytest.mark.slow
@pytest.mark.parametrize("language", ["c", "fortran"])
def test_a_study_runs_with_heat_in_another_language(request, tmp_path, language):
    program = request.getfixturevalue(f"heat_{language}")
    settings = {
        "simulation.command": f'["{program}", --mesh, "16", --steps, "10"]',
        "simulation.count": 4,
        "simulation.time_steps": 10,
        "simulation.fields.temperature.shape": "[16, 16]",
        "training.draws_per_sample": 1,
        "training.batch_size": 4,
        "training.validation.simulations": 0,
        "reservoir.capacity": 100,
        "reservoir.watermark": 10,
        "sampler.method": "uniform",
    }
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    folder = tmp_path / "run"
    run(BIN / "melissa-gen", "run", STUDY, "--run-dir", folder, *sets, timeout=280)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["simulations"]["completed"] == 4
    samples = summary["samples"]
    assert samples["produced"] == samples["received"] == samples["stored"] == 40
    assert samples["lost"] == samples["duplicate"] == samples["rejected"] == 0
    assert samples["trained"] + samples["withdrawn"] == 40


PROBE_STUDY = """
name: probe
parameters:
  p: {{distribution: uniform, low: 0, high: 1}}
  q: {{distribution: uniform, low: 0, high: 1}}
simulation:
  command: ["{probe}", fail]
  count: 6
  processes: 1
  time_steps: 3
  fields:
    a: {{shape: [4, 6], dtype: float32}}
    b: {{shape: [3], dtype: float64}}
surrogate: {{class: melissa_gen.surrogates.MLP, arguments: {{hidden: [8]}}}}
training: {{batch_size: 2, draws_per_sample: 1, validation: {{simulations: 0}}}}
reservoir: {{capacity: 40, watermark: 2}}
sampler: {{method: uniform}}
server: {{ranks: 1}}
launcher: {{clients: 1}}
"""


@pytest.mark.slow
def test_a_study_goes_on_after_a_simulation_that_was_given_up(probe, tmp_path):
    study, folder = tmp_path / "study.yaml", tmp_path / "run"
    study.write_text(PROBE_STUDY.format(probe=probe))
    run(BIN / "melissa-gen", "run", study, "--run-dir", folder, timeout=280)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert (summary["simulations"]["completed"], summary["simulations"]["failed"]) == (5, 1)
    assert summary["samples"]["produced"] == summary["samples"]["received"] == 16
    lines = [json.loads(line) for line in (folder / "simulations.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines if line["simulation"] == 0] == ["failed"]

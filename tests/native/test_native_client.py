"""The C and Fortran client library: its messages, its behavior against a server, and its solvers."""

import json
import subprocess
import sys
from itertools import product

import numpy as np
import pytest

from .building import BIN, HERE, MPIRUN, NATIVE, ROOT, STRICT, flags, need, need_headers, run
from .probing import assert_whole, serve_probe, start

pytestmark = [pytest.mark.mpi, pytest.mark.long]

STUDY = ROOT / "simulations" / "heat" / "study.yaml"
VECTORS = ROOT / "tests" / "unit" / "protocol" / "vectors.json"
TEMPERATURES = ("initial", "left", "right", "bottom", "top")


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
            assert result["body"]["not for clients"] in (9, 11, 99), vector["name"]


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


def test_a_client_is_clean_under_valgrind(serve, probe):
    valgrind = need("valgrind", "valgrind")
    checks = ("-q", "--error-exitcode=9", "--leak-check=full", "--show-leak-kinds=all")
    for mode in ("good", "nan", "unknown-send", "half-step", "wrong-shape"):
        server = serve_probe(serve, ranks=2, shared=mode != "nan", maps=mode == "good")
        done = start(server, valgrind, *checks, probe, mode)
        assert done.returncode < 9, done.stderr
        assert "==" not in done.stderr, done.stderr


def test_a_locale_with_decimal_commas_changes_nothing(serve, probe, tmp_path):
    words = ("-i", "de_DE", "-f", "UTF-8", "--no-archive", tmp_path / "de_DE.UTF-8")
    run(need("localedef", "locales"), *words)
    server = serve_probe(serve)
    done = start(server, probe, "good", LOCPATH=str(tmp_path), LC_ALL="de_DE.UTF-8")
    assert (done.returncode, done.stderr) == (0, "")
    server.close()
    assert_whole(server)


def test_the_header_serves_cplusplus(serve, without_mpi, tmp_path):
    compiler = need("c++", "g++")
    program = tmp_path / "probe"
    options = (*STRICT, "-x", "c++", HERE / "probe.c", *flags(without_mpi))
    run(compiler, *options, "-o", program)
    server = serve_probe(serve)
    assert start(server, program).returncode == 0
    server.close()
    assert_whole(server)


def test_a_lost_server_ends_all_ranks(serve, heat_c):
    fields = {"temperature": ("float32", (16, 16))}
    names = [f"{name}_temperature" for name in TEMPERATURES]
    server = serve(fields, 100, [(300.0,) * 5], names, mute_after=3, heartbeat_timeout=0.5)
    done = start(server, MPIRUN, "-n", 2, heat_c, "--mesh", 16)
    assert done.returncode != 0
    assert "the training server has been silent for" in done.stderr  # said by either thread


def test_messages_of_the_client_do_not_match_those_of_the_solver(serve, with_mpi, tmp_path):
    program = tmp_path / "collectives"
    options = (*STRICT, HERE / "collectives.c", *flags(with_mpi.prefix))
    run(with_mpi.mpicc, *options, "-o", program)
    server = serve({"a": ("float64", (2,))}, 1, [(0.5,), (1.5,)], ("p",))
    done = start(server, MPIRUN, "-n", 2, program)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    server.close()
    assert [server.samples[n, 0]["a"].tolist() for n in range(2)] == [[7.0, 7.0], [8.0, 8.0]]


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
    assert set(server.finalized) == {(s, r, s % 2) for s, r in product(range(2), range(processes))}
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
    "cpp": """
        #include <vector>
        static void solve_one_step(double left, std::vector<double> &u) {
            for (int i = 0; i < 8000; i++) u[(i / 80 + 1) * 82 + i % 80 + 1] = left + i % 80; }
    """,
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


@pytest.mark.parametrize("language", ["c", "cpp", "fortran"])
def test_the_readmes_example_runs_as_printed(serve, request, tmp_path, language):
    text = (NATIVE / "README.md").read_text(encoding="utf-8")
    example = text.split(f"```{language}\n")[1].split("```")[0]
    program = tmp_path / "solver"
    if language == "cpp":
        prefix, compiler = request.getfixturevalue("without_mpi"), need("c++", "g++")
        source, stub = tmp_path / "solver.cpp", tmp_path / "stub.h"
        files = ("-include", stub, source)
    elif language == "c":
        built = request.getfixturevalue("with_mpi")
        source, stub = tmp_path / "solver.c", tmp_path / "stub.h"
        files, compiler, prefix = ("-include", stub, source), built.mpicc, built.prefix
    else:
        built = request.getfixturevalue("with_fortran")
        source, stub = tmp_path / "solver.f90", tmp_path / "stub.f90"
        files, compiler, prefix = (stub, source), built.mpifort, built.prefix
    source.write_text(example)
    stub.write_text(STUBS[language])
    module = "melissa_gen_fortran" if language == "fortran" else "melissa_gen"
    run(compiler, *files, *flags(prefix, module), "-o", program)
    server = serve({"temperature": ("float32", (100, 80))}, 100, [(250.0,)], ("left_temperature",))
    launch = () if language == "cpp" else (MPIRUN, "-n", "2")
    done = start(server, *launch, program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    server.close()
    assert len(server.samples) == 100
    expected = np.broadcast_to(250.0 + np.arange(80.0), (100, 80))
    for sample in server.samples.values():
        np.testing.assert_array_equal(sample["temperature"], expected)


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


def test_a_study_continues_after_a_simulation_was_given_up(probe, tmp_path):
    study, folder = tmp_path / "study.yaml", tmp_path / "run"
    study.write_text(PROBE_STUDY.format(probe=probe))
    run(BIN / "melissa-gen", "run", study, "--run-dir", folder, timeout=280)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert (summary["simulations"]["completed"], summary["simulations"]["failed"]) == (5, 1)
    assert summary["samples"]["produced"] == summary["samples"]["received"] == 16
    lines = [json.loads(line) for line in (folder / "simulations.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines if line["simulation"] == 0] == ["failed"]

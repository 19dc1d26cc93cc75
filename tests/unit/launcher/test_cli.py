import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from melissa_gen.launcher import cli
from melissa_gen.launcher.commands.remedies import remedy
from melissa_gen.protocol.failures import Failure


@pytest.fixture(autouse=True)
def handlers():
    """`main` sets signal handlers for the whole process."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `melissa-gen` with arguments; returns exit status, output and error output."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["melissa-gen", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        output, errors = capsys.readouterr()
        return end.value.code, output, errors

    return call


def test_version(command):
    code, output, _ = command("--version")
    assert code == 0
    assert output.startswith("melissa-gen ")


def test_files_of_the_user_do_not_replace_modules_of_the_command(tmp_path):
    for name in ("launcher", "report", "study", "protocol"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('a file of the user was imported')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    words = [str(Path(sys.executable).parent / "melissa-gen"), "--version"]
    said = subprocess.run(
        words, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, cwd=tmp_path
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("melissa-gen ")


def test_schema_is_json(command):
    code, output, _ = command("schema")
    assert code == 0
    assert "parameters" in json.loads(output)["properties"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.batchsize=3", "did you mean 'batch_size'"),
        ("simulation.command=[python, gone.py]", "there is no script 'gone.py' in"),
        ("simulation.command=[no-such-solver]", "there is no executable 'no-such-solver' in"),
        ("simulation.command=[./solver.py]", "'./solver.py' in"),
        ("simulation.command=[./solver.py]", "is not executable; chmod +x"),
        ("sampler.method=difusion_posterior", "diffusion_posterior"),
        ("launcher.mpirun=/no/such/mpirun", "launcher.mpirun"),
        ("reservoir.max_memory=1 kB", "reservoir.max_memory allows 0 MB"),
    ],
)
def test_an_error_in_the_study_ends_the_command_before_any_job_starts(
    command, study_file, tmp_path, override, words
):
    run_dir = tmp_path / "run"
    code, _, errors = command("run", study_file, "--run-dir", run_dir, "--set", override)
    assert code == 2
    assert words in errors
    assert errors.count("\n") == 1
    assert "Traceback" not in errors
    assert not run_dir.exists()


def test_a_run_directory_that_holds_a_run(command, study_file, tmp_path):
    (tmp_path / "run.json").touch()
    code, _, errors = command("run", study_file, "--run-dir", tmp_path)
    assert code == 1
    assert "already holds a run" in errors


def test_the_traceback_only_on_demand(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["melissa-gen", "--debug", "check", str(tmp_path / "no.yaml")])
    monkeypatch.setenv("MELISSA_GEN_DEBUG", "")
    with pytest.raises(cli.MelissaGenError):
        cli.main()


@pytest.mark.parametrize(
    "arguments",
    [("run",), ("run", "--nonsense"), ("nonsense",), ("generate", "study.yaml", "--output", "x")],
)
def test_a_wrong_command_line(command, arguments):
    code, _, errors = command(*arguments)
    assert code == 2
    assert "melissa-gen: " in errors
    assert "--help" in errors


@pytest.mark.parametrize("name", ["status", "report"])
def test_a_folder_that_is_no_run_directory(command, tmp_path, name):
    code, _, errors = command(name, tmp_path)
    assert code == 1
    assert "is not a run directory" in errors
    assert list(tmp_path.iterdir()) == []


def test_status(command, tmp_path):
    status = {"time": 1.0, "event": "status", "simulations": {"planned": 10, "completed": 7}}
    (tmp_path / "events.jsonl").write_text(json.dumps(status) + "\n")
    code, output, _ = command("status", tmp_path)
    assert code == 0
    assert "7 of 10" in output


@pytest.mark.parametrize(
    ("code", "values", "fix"),
    [
        (
            "too_few_steps",
            {"simulation": 0, "steps": 50, "time_steps": 100},
            "set simulation.time_steps to 50",
        ),
        (
            "too_many_steps",
            {"simulation": 0, "step": 50, "time_steps": 50},
            "let it stop after 50",
        ),
        (
            "wrong_shape",
            {"field": "u", "found": [64, 64], "expected": [100, 100]},
            "simulation.fields.u.shape to [64, 64]",
        ),
        (
            "not_finite",
            {
                "simulation": 0,
                "step": 3,
                "field": "u",
                "count": 9,
                "dtype": "float32",
                "place": [0],
            },
            "smaller time step",
        ),
        ("unknown_field", {"field": "v", "legal": ["u"]}, "declare 'v' there"),
        ("undeclared_fields", {"fields": ["u", "p"]}, "remove u, p there"),
        ("wrong_ranks", {"job": "j", "ranks": 1, "processes": 2}, "the mpirun of the solver's own"),
        ("unknown_parameter", {"parameter": "b", "legal": ["a"]}, "add 'b' there"),
        ("no_progress", {"simulation": 0, "step": 3, "seconds": 9}, "raise simulation.timeout"),
        ("process_ended", {"exit_status": 0}, "open a melissa_gen client"),
        ("process_ended", {"exit_status": 9}, ""),
        ("other", {"text": "something else"}, ""),
    ],
)
def test_the_remedy_follows_from_the_code(code, values, fix):
    found = remedy(Failure.of(code, **values))
    assert (found is not None) == bool(fix)
    assert found is None or fix in found.fix


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        ("ModuleNotFoundError: No module named 'foamlib'", "install foamlib into"),
        ("s: error while loading shared libraries: libmpi.so.40: no", "that contains libmpi.so.40"),
    ],
)
def test_messages_of_other_programs_are_recognized_by_their_text(line, fix):
    failure = Failure.of("process_ended", exit_status=1).with_details(f"its log ends: {line}")
    assert fix in remedy(failure).fix

import os
import sys

import pytest

from melissa_gen.errors import RunError, StudyError
from melissa_gen.launcher.backends.mpirun import (
    MpirunOptions,
    clean_environment,
    find_mpirun,
    mpirun_command,
    resolve_command,
)


@pytest.mark.parametrize("implementation", ["hydra", "openmpi", "other"])
def test_every_command_line_names_the_ranks_and_ends_with_the_command(implementation):
    line = mpirun_command(MpirunOptions("/bin/mpirun", implementation, 1, ("./solver", "-n", "7")))
    assert line[0] == "/bin/mpirun"
    assert line[-5:] == ["-n", "1", "./solver", "-n", "7"]


def test_hydra_stays_on_this_machine_and_open_mpi_binds_nothing():
    hydra = mpirun_command(MpirunOptions("mpirun", "hydra", 2, ("a",)))
    assert hydra == ["mpirun", "-launcher", "fork", "-rmk", "user", "-n", "2", "a"]
    openmpi = mpirun_command(MpirunOptions("mpirun", "openmpi", 2, ("a",)))
    assert openmpi == ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", "2", "a"]


@pytest.mark.parametrize(
    "key",
    [
        "OMPI_COMM_WORLD_RANK",
        "PMI_RANK",
        "PMI2_FD",
        "PMIX_NAMESPACE",
        "PRTE_LAUNCHED",
        "HYDRA_CONTROL_FD",
        "MPIR_PARAM_X",
        "SLURM_STEP_ID",
        "SLURM_STEPID",
        "SLURM_PROCID",
        "SLURM_LOCALID",
        "SLURM_TASK_PID",
        "SLURM_SRUN_COMM_PORT",
        "MELISSA_GEN_SERVER",
        "MELISSA_GEN_SIMULATION",
    ],
)
def test_variables_of_another_world_are_removed(key):
    assert clean_environment({key: "1"}) == {}


@pytest.mark.parametrize(
    "key",
    [
        "MPIR_CVAR_CH4_NETMOD",
        "SLURM_JOB_ID",
        "SLURM_JOB_NODELIST",
        "PATH",
        "MELISSA_GEN_DEBUG",
        "CUDA_VISIBLE_DEVICES",
    ],
)
def test_all_else_is_kept(key):
    assert clean_environment({key: "1"}) == {key: "1"}


def test_open_mpi_is_allowed_to_run_as_root_only_as_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert clean_environment({}, "openmpi")["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] == "1"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "OMPI_ALLOW_RUN_AS_ROOT" not in clean_environment({}, "openmpi")


def test_python_is_this_interpreter_and_its_script_is_beside_the_study(tmp_path):
    (tmp_path / "heat.py").touch()
    command = resolve_command(["python", "heat.py", "--mesh", "10"], tmp_path)
    assert command == (sys.executable, str(tmp_path / "heat.py"), "--mesh", "10")
    assert resolve_command(["python", "-m", "heat"], tmp_path) == (sys.executable, "-m", "heat")


def test_an_executable_beside_the_study_or_on_the_path(tmp_path):
    solver = tmp_path / "solver"
    solver.touch(mode=0o755)
    assert resolve_command(["./solver", "in"], tmp_path) == (str(solver), "in")
    assert resolve_command(["solver"], tmp_path) == (str(solver),)
    assert resolve_command(["true"], tmp_path)[0].endswith("/true")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["python", "nothing.py"], "no script 'nothing.py'"),
        (["./nothing"], "no executable './nothing'"),
        (["no-such-solver-anywhere"], "on PATH"),
        (["./plain"], "chmod \\+x"),
    ],
)
def test_a_command_that_is_not_there(tmp_path, command, words):
    (tmp_path / "plain").touch(mode=0o644)
    with pytest.raises(StudyError, match=words) as caught:
        resolve_command(command, tmp_path)
    assert str(caught.value).startswith("simulation.command: ")


def test_which_mpirun(tmp_path, monkeypatch):
    mine = tmp_path / "mpirun"
    mine.touch(mode=0o755)
    assert find_mpirun(str(mine)) == str(mine)
    with pytest.raises(StudyError, match=r"launcher\.mpirun"):
        find_mpirun("/no/such/mpirun")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert find_mpirun() == str(mine)
    mine.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="pip install"):
        find_mpirun()

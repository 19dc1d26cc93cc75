"""Generated scripts and commands keep paths and arguments as they are, whatever characters these hold.

Each script is executed by a real shell, with a program in place of the scheduler's that prints
its arguments.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from melissa_gen.errors import RunError, StudyError
from melissa_gen.launcher.backends.allocation import step_script
from melissa_gen.launcher.backends.base import MpiJob
from melissa_gen.launcher.backends.mpirun import MpirunOptions, find_mpirun, mpirun_command
from melissa_gen.launcher.backends.schedulers.base import is_plain, job_spec
from melissa_gen.launcher.backends.schedulers.flux import Flux
from melissa_gen.launcher.backends.schedulers.oar import Oar
from melissa_gen.launcher.backends.schedulers.psij import Psij
from melissa_gen.launcher.backends.schedulers.slurm import Slurm
from melissa_gen.run_dir.folder import held_run_dir
from melissa_gen.study import JobsSection, load_study

HOSTILE = [
    "with space",
    "per%cent%j",
    "quo'te",
    'dou"ble',
    "back\\slash",
    "new\nline",
    "$HOME `id`",
    "#!;&|<>*?~",
]
NAMES = st.text(
    st.sampled_from(list(" %'\"\\$`#;&|<>*?~!(){}[]=:,.-\n\tjaé")), min_size=1, max_size=12
).filter(lambda name: name not in (".", ".."))
ARGUMENTS = st.lists(st.one_of(NAMES, st.sampled_from(["", ":", "-n", "--"])), max_size=4)
STUB = """#!{python}
import json, os, sys
print(json.dumps([sys.argv[1:], os.getcwd(), os.environ.get("VALUE")]))
"""
many = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def examples(test):
    """Adds known difficult folder names as examples of a property."""
    for name in HOSTILE:
        test = example(name=name, arguments=["a b", ":"])(test)
    return test


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    """A folder with programs that print their arguments, folder and one variable."""
    folder = tmp_path_factory.mktemp("stubs")
    for name in ("srun", "mpirun", "flux"):
        (folder / name).write_text(STUB.format(python=sys.executable))
        (folder / name).chmod(0o755)
    return folder


def spec_of(name, arguments, place, logs=None):
    folder = place / "folders" / name
    folder.mkdir(parents=True, exist_ok=True)
    logs = folder if logs is None else logs
    job = MpiJob("client-0", (f"{folder}/solver", *arguments), 3, {"VALUE": name})
    return job_spec(job, "abc", logs, folder, JobsSection())


def execute(script, stubs, spec):
    """Executes a script as a scheduler does, in another folder; returns what the stub printed."""
    path = stubs / "script.sh"
    path.write_text(script)
    checked = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    spec.log.unlink(missing_ok=True)
    environment = os.environ | {"PATH": f"{stubs}:{os.environ['PATH']}", "OAR_NODEFILE": "nodes"}
    said = subprocess.run(
        ["bash", path], capture_output=True, text=True, check=False, cwd="/", env=environment
    )
    assert said.stderr == ""
    assert said.returncode == 0
    # The scheduler writes the log, or the script itself.
    return json.loads(said.stdout or spec.log.read_text())


def options(script, mark):
    """The options of a script, split as by a shell."""
    lines = [line.removeprefix(mark) for line in script.splitlines() if line.startswith(mark)]
    return [word for line in lines for word in shlex.split(line)]


@many
@examples
@given(name=NAMES.filter(lambda name: "/" not in name), arguments=ARGUMENTS)
def test_a_slurm_script(stubs, tmp_path, name, arguments):
    spec = spec_of(name, arguments, tmp_path)
    script = Slurm().script(spec)
    words, folder, value = execute(script, stubs, spec)
    assert words[-1 - len(arguments) :] == list(spec.command)
    assert value == name
    given = dict(re.findall(r"--([\w-]+)=(.*)", "\n".join(options(script, "#SBATCH "))))
    if is_plain(spec.folder):
        assert (given["chdir"], given["output"]) == (str(spec.folder), str(spec.log))
    else:
        assert folder == str(spec.folder)
        assert spec.log.exists()
        assert (given["chdir"], given["output"]) == ("/", "/dev/null")


@many
@examples
@given(name=NAMES, arguments=ARGUMENTS)
def test_a_step_of_an_allocation(stubs, tmp_path, name, arguments):
    spec = spec_of(name, arguments, tmp_path)
    words, _, value = execute(step_script(spec), stubs, spec)
    assert words[-1 - len(arguments) :] == list(spec.command)
    assert f"--chdir={spec.folder}" in words
    assert value == name


@many
@examples
@given(name=NAMES, arguments=ARGUMENTS)
def test_a_flux_script(stubs, tmp_path, name, arguments):
    spec = spec_of(name, arguments, tmp_path)
    script = Flux().script(spec)
    words, folder, value = execute(script, stubs, spec)
    assert words[-1 - len(arguments) :] == list(spec.command)
    assert (folder, value) == (str(spec.folder), name)
    output = str(spec.log) if is_plain(spec.log) else "/dev/null"
    assert f"--output={output}" in options(script, "# flux: ")


@many
@examples
@given(name=NAMES, arguments=ARGUMENTS)
def test_an_oar_script(stubs, tmp_path, name, arguments):
    logs = tmp_path / "logs"
    spec = spec_of(name, arguments, tmp_path, logs)
    script = Oar(str(stubs / "mpirun"), "hydra", logs).script(spec)
    words, folder, value = execute(script, stubs, spec)
    assert words[-1 - len(arguments) :] == list(spec.command)
    assert "nodes" in words
    assert (folder, value) == (str(spec.folder), name)


@many
@examples
@given(name=NAMES, arguments=ARGUMENTS)
@pytest.mark.parametrize("executor", ["pbs", "lsf"])
def test_a_psij_script(executor, stubs, tmp_path, name, arguments):
    pytest.importorskip("psij")
    logs = tmp_path / "logs"
    logs.mkdir(exist_ok=True)
    spec = spec_of(name, arguments, tmp_path, logs)
    script = Psij(executor, str(stubs / "mpirun"), "hydra", logs).script(spec)
    words, folder, value = execute(script, stubs, spec)
    assert words[-1 - len(arguments) :] == list(spec.command)
    assert (folder, value) == (str(spec.folder), name)


@pytest.mark.parametrize("name", HOSTILE)
def test_paths_that_a_scheduler_can_not_read_are_reported(name):
    with pytest.raises(RunError, match="choose a run directory without blanks and quotes"):
        Oar("mpirun", "hydra", Path("/runs") / name)
    with pytest.raises(RunError, match="choose a run directory without blanks and quotes"):
        Psij("pbs", "mpirun", "hydra", Path("/runs") / name)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@examples
@given(name=NAMES, arguments=ARGUMENTS)
def test_a_local_command(stubs, tmp_path, name, arguments):
    program = tmp_path / "folders" / name / "solver"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_bytes((stubs / "mpirun").read_bytes())
    program.chmod(0o755)
    options = MpirunOptions(find_mpirun(), "hydra", 1, (str(program), *arguments))
    said = subprocess.run(
        mpirun_command(options), capture_output=True, text=True, check=False, cwd=program.parent
    )
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)[:2] == [arguments, str(program.parent)]


def test_folders_whose_names_are_not_utf8_are_refused(tmp_path, study_file):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    words = "is not text in UTF-8; choose another --run-dir"
    with pytest.raises(RunError, match=words), held_run_dir(folder / "run"):
        pass
    folder.mkdir()
    (folder / "study.yaml").write_bytes(study_file.read_bytes())
    with pytest.raises(StudyError, match="is not text in UTF-8; rename the folder"):
        load_study(folder / "study.yaml")

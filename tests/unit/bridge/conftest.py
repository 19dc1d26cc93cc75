"""A program that does not use melissa_gen, and a simulation that stores its fields."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from melissa_gen.bridge import BridgeJob
from melissa_gen.errors import SimulationError
from melissa_gen.study import load_study

STEPS = 4
PROGRAM = """
import os, subprocess, sys, time
import numpy as np

a = float(open("input.txt").read().split("=")[1])
mishap = sys.argv[1]
print("a =", a, flush=True)
steps = {"short": 2, "more": 6}.get(mishap, 4)
if mishap == "nothing":
    sys.exit(0)
if mishap == "license":
    print("licence key?", flush=True)
    sys.exit(3 if sys.stdin.readline() == "" else 0)
if mishap == "gigabyte":
    line = "residual 1e-7 " * 5000 + "\\n"
    for _ in range(300):
        sys.stdout.write(line)
if mishap == "libmpi":
    sys.exit("solver: error while loading shared libraries: libmpi.so.40: cannot open shared object file")
for step in range(steps):
    u = np.full((2, 3), a + step)
    if step == 2:
        if mishap == "shape":
            u = np.zeros((2, 4))
        if mishap == "nan":
            u[0, 0] = np.nan
        if mishap == "exit":
            sys.exit("the mesh is tangled")
        if mishap == "kill":
            os.kill(os.getpid(), 9)
        if mishap == "hang":
            time.sleep(3600)
        if mishap == "child":
            subprocess.Popen(["sleep", "3600"], start_new_session=True)
            sys.exit(0)
    np.save(f"u{step}.npy", u)
    if step == 2 and mishap == "half":
        raw = open("u2.npy", "rb").read()
        open("u2.npy", "wb").write(raw[:140])
        sys.exit(0)
"""


class Simulation:
    """Replaces the simulation of a client and refuses the same values."""

    number, attempt = 7, 0

    def __init__(self, a=0.5):
        self.parameters = {"a": a, "n": 3}
        self.sent, self.reason, self.inputs = [], None, None
        self.on_send = lambda: None

    @property
    def step(self):
        return len(self.sent)

    def send_inputs(self, **inputs):
        assert self.inputs is None and not self.step
        self.inputs = inputs

    def send(self, **fields):
        if self.step == STEPS:
            self.fail("the study has 4 time steps; this one is too many")
            raise SimulationError(self.reason)
        if not np.isfinite(fields["u"]).all():
            self.fail("field 'u' has 1 values that are NaN")
            raise SimulationError(self.reason)
        self.sent.append(fields["u"])
        self.on_send()

    def fail(self, reason):
        self.reason = self.reason or str(reason)
        self.failure = reason


@pytest.fixture
def make_study(tmp_path):
    """Returns the function that makes a bridged study of `PROGRAM` with a fault."""
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "program.py").write_text(PROGRAM)
    (folder / "input.j2").write_text("a = {{ a }}\n")

    def make(mishap="good", *, command=None, bridge=(), **simulation):
        section = {
            "inputs": {"input.j2": "input.txt"},
            "reader": {"format": "numpy", "files": "u*.npy"},
        }
        path = folder / "study.yaml"
        path.write_text(
            json.dumps(
                {
                    "name": "bridged",
                    "parameters": {
                        "a": {"distribution": "uniform", "low": 0.0, "high": 1.0},
                        "n": {"distribution": "integer", "low": 1, "high": 5},
                    },
                    "simulation": {
                        "command": command
                        or [sys.executable, "{{ study_folder }}/program.py", mishap],
                        "count": 4,
                        "time_steps": STEPS,
                        "fields": {"u": {"shape": [2, 3]}},
                        "bridge": section | dict(bridge),
                        **simulation,
                    },
                    "reservoir": {"capacity": 8, "watermark": 2},
                    "training": {"batch_size": 2},
                }
            )
        )
        return load_study(path)

    return make


@pytest.fixture
def bridged(make_study, tmp_path):
    """Returns the function that makes a job, and a simulation for it."""

    def make(mishap="good", **more):
        study = make_study(mishap, **more)
        where = tmp_path / "run" / "simulations"
        job = BridgeJob.of(study, tuple(study.simulation.command), where)
        return SimpleNamespace(job=job, simulation=Simulation(), folder=where / "000007")

    return make

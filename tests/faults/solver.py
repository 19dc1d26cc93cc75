"""A solver with little work and faults that the study selects.

Options: --steps N (default 10), --mishaps JSON ({"simulation number": "what"}; "all" stands for every number),
--every-attempt NUMBERS, comma-separated (else a mishap strikes the first attempt alone), --pause SECONDS per step,
--gate FILE (simulations from number 6 on wait half-way until it is there), --input (sends an input k first).
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from melissa_gen.client import Client

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=10)
parser.add_argument("--mishaps", type=json.loads, default={})
parser.add_argument("--every-attempt", default="")
parser.add_argument("--pause", type=float, default=0.0)
parser.add_argument("--gate", type=Path)
parser.add_argument("--mesh", type=int, default=12)
parser.add_argument("--input", action="store_true")
options = parser.parse_args()
again = options.every_attempt.split(",")

if os.environ.get("PMI_SIZE", "1") != "1":
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    rank, ranks = comm.Get_rank(), comm.Get_size()
else:
    comm, rank, ranks = None, 0, 1


def mishap_of(simulation):
    """Returns the fault of this attempt."""
    number = str(simulation.number)
    what = options.mishaps.get(number, options.mishaps.get("all", ""))
    return what if simulation.attempt == 0 or number in again or "all" in again else ""


def strike(what, field):
    """Applies the fault in the middle of a simulation; returns the field to send."""
    if what == "exit":
        sys.stdout.flush()
        os._exit(0)
    elif what == "kill" and rank == ranks - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "raise":
        raise RuntimeError("the mesh is tangled")
    elif what == "hang":
        time.sleep(3600)
    elif what == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(3600)
    elif what == "nan":
        field[1, 2] = np.nan
    elif what == "shape":
        return field[:1]
    elif what == "chatter":
        for _ in range(20_000):
            print("residual 1e-7 " * 10)
    elif what == "stdin" and rank == 0:  # that of other ranks is nobody's and stays open
        assert sys.stdin.read() == ""
    return field


rows = options.mesh // ranks
x, y = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, 4), indexing="ij")
with Client(comm) as client:
    client.field("u", shape=(options.mesh, 4), start=(rank * rows, 0), extent=(rows, 4))
    if options.input:
        client.field("k", shape=(options.mesh, 4), start=(rank * rows, 0), extent=(rows, 4))
    if "idle" in options.mishaps.values():
        time.sleep(3600)
    for simulation in client:
        a, b = simulation.parameters["a"], simulation.parameters["b"]
        what = mishap_of(simulation)
        if options.input:
            simulation.send_inputs(k=a * np.sin(3 * x + rank) + b)
        for step in range(options.steps + (what == "more")):
            field = a * np.sin(3 * x + rank) + b * np.cos(y) * 0.9**step
            if step == options.steps // 2:
                if what == "break":
                    break
                field = strike(what, field)
                while options.gate and simulation.number >= 6 and not options.gate.exists():
                    time.sleep(0.01)
            if comm is not None:
                comm.Barrier()  # as a halo exchange would, it keeps the ranks together
            simulation.send(u=field)
            time.sleep(options.pause)

"""Two fields of different rank and type on three MPI ranks with uneven blocks, computed in double precision."""

import sys

import numpy as np
from mpi4py import MPI

from melissa_gen.client import Client

STEPS, ROWS, COLUMNS = int(sys.argv[1]), 10, 6
comm = MPI.COMM_WORLD
first, last = (comm.rank * ROWS // comm.size, (comm.rank + 1) * ROWS // comm.size)
x = np.arange(first, last) / ROWS
y = np.arange(COLUMNS) / COLUMNS
with Client(comm) as client:
    client.field(
        "pressure", shape=(ROWS, COLUMNS), start=(first, 0), extent=(last - first, COLUMNS)
    )
    client.field("wall", shape=(ROWS,), start=(first,), extent=(last - first,), dtype="float64")
    field = np.empty((last - first, COLUMNS))
    for simulation in client:
        a, b = simulation.parameters["a"], simulation.parameters["b"]
        for step in range(STEPS):
            field[:] = a * np.sin(3 * x)[:, None] + b * np.cos(y) * 0.9**step  # in place: reused
            simulation.send(pressure=field, wall=field[:, 0])

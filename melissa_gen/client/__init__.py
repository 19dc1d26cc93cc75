"""What a solver calls: open a client, declare fields, loop over simulations, send time steps.

`client` is the interface, `online` streams to a training server, `offline` writes HDF5 instead, `heartbeat` tells the
server that the process lives. Nothing here keeps global state; two clients may live in one process.
"""

from melissa_gen.client.client import Client, Simulation

__all__ = ["Client", "Simulation"]

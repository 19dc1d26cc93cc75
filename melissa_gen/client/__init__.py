"""The interface for solvers: open a client, declare fields, loop over simulations, send time steps.

`client` is the interface. `destination` defines what a client needs from the receiver of its samples;
`server_connection` implements it for a training server and `hdf5_output` for a file. `heartbeat` tells the server that
the process is alive, `communicator` holds the collective calls, and `native` the same client for C and Fortran.
Nothing here keeps global state, so that two clients can live in one process. This package imports
`melissa_gen.protocol`, `melissa_gen.dataset` and `melissa_gen.errors`. It logs to `melissa_gen.client`; messages that
must reach the user go to the standard error if the application has configured no logging (`user_messages`).
"""

import logging

from melissa_gen.client.client import Client, Simulation

__all__ = ["Client", "Simulation"]

logging.getLogger(__name__).addHandler(logging.NullHandler())

"""The client for an executable that can't be changed: it renders inputs, runs the command, and sends the outputs.

The section `simulation.bridge` of the study describes inputs and outputs. The launcher starts
`python -m melissa_gen.bridge JOB.json` instead of the command of the study. `job_file` holds what the launcher writes
to that file, `solve` solves one simulation, `inputs` renders templates, `command` runs a program, `coordinates` records
the mesh, and `readers` read the output. The bridge uses the public client; it imports `melissa_gen.client`,
`melissa_gen.study`, `melissa_gen.protocol.failures`, `melissa_gen.mpi_environment` and `melissa_gen.logs`.
"""

from melissa_gen.bridge.job_file import BridgeJob

__all__ = ["BridgeJob"]

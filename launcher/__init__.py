"""The `melissa-gen` command, which starts, monitors and terminates the jobs of a study.

The package is imported as `melissa_gen.launcher`. The server decides which jobs should run. `jobs` contains the job
state machine and the main loop, `backends` start MPI jobs, `commands` has one module per command, and `cli` defines
the command line. The launcher may import all of `melissa_gen`. Only `melissa_gen.api` imports it.
"""

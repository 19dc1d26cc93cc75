"""The `melissa-gen` command: it starts, watches and ends the jobs of a study; imported as `melissa_gen.launcher`.

The server decides what should run. `jobs` holds the state machine and the loop around it, `backends` start MPI worlds,
`commands` has one module for each command, and `cli` is the command line. It may import all of `melissa_gen`; nothing
there imports it.
"""

"""The `melissa-gen` command: it keeps the jobs of a study running, and nothing else.

The server decides what should run, the launcher starts, watches and ends it: `jobs` is the state machine (pure),
`local` the back end that starts MPI worlds on this machine, `link` the socket to the server, `run` the loop that
joins the three. `generate`, `check` and `doctor` are the commands that need no server. It may import `melissa_gen`;
nothing there imports it.
"""

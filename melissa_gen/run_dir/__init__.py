"""The run directory: creation, locks, checkpoints, the event log, and reading a run back as plain data.

Launcher, server, report and API use this package. It may import `melissa_gen.study`, `.protocol` and `.errors`, but not
torch, so that processes without training stay small.
"""

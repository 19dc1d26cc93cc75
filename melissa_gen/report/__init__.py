"""Presentation of a run: live view, TensorBoard, HTML report, and the comparison of several runs.

Modules here read a run directory, or the events of a run, as plain data. They may import `melissa_gen.run_dir` and
`melissa_gen.errors`, but no server objects. This package re-exports nothing: import `live` (terminal), `tensorboard`,
`html` (report) or `comparison` directly, so that a process with only a live view does not load matplotlib.
"""

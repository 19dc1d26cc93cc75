"""Experiment trackers: MLflow, Weights & Biases and Trackio behind one small interface.

A process for each tracker follows the events of the run: `python -m melissa_gen.report.trackers.following`. The
launcher and the server import only `packages` of this. Only the module of a tracker imports its package.
"""

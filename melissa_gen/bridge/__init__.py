"""The client for an executable that can't be changed: it renders inputs, runs the command, and sends its outputs.

`simulation.bridge` in the study says how. It is a client like any other, and calls nothing but `melissa_gen.client`;
the launcher starts it as `python -m melissa_gen.bridge JOB.json` in the place of the study's command.
"""

from melissa_gen.bridge.job_file import BridgeJob

__all__ = ["BridgeJob"]

"""The run directory: its creation and lock, and the checkpoints in it."""

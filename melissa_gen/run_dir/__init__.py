"""The run directory: its creation and lock, its checkpoints, its event log, and reading it back as plain data."""

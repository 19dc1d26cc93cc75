"""The training loop of a server rank, its devices, validation and importance weights."""

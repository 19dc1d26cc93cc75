"""The jobs of a study: a pure state machine, its events, and the loop that runs it against processes and sockets."""

"""The control process beside rank 0: control of clients and ranks, state of simulations, proposals and status."""

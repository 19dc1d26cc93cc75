"""Coordination on rank 0: control of clients and server ranks, state of simulations, proposals and status."""

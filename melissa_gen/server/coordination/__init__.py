"""What rank 0 does beside training: control of clients and ranks, bookkeeping of simulations, proposals, status."""

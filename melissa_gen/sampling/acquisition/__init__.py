"""What is learned from training: difficulty of simulations, and acquisition functions fitted to it."""

"""The difficulty of simulations, measured in training, and the acquisitions that are fitted to it."""

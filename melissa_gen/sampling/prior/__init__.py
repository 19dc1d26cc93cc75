"""Prior distributions of the parameters: independent distributions, constraints and tables of points."""

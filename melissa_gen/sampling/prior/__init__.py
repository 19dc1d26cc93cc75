"""Prior distributions: marginals, constraints, feasible points."""

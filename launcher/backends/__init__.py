"""Back ends start and watch MPI worlds: on this machine, inside a SLURM allocation, or as batch jobs."""

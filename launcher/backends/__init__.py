"""Back ends start and watch MPI jobs: on this machine, inside a SLURM allocation, or as batch jobs."""

"""Back ends, which start and poll MPI jobs: on this machine, inside a SLURM allocation, or as batch jobs.

This package may import `melissa_gen.bridge`, `melissa_gen.run_dir` and `melissa_gen.study`, but not the job state
machine.
"""

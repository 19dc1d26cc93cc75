"""The training server, which is started by `mpirun -n R python -m melissa_gen.server RUN_DIR`.

On every rank, `ingest` receives parts of fields and assembles samples, the reservoir stores them, and `training` draws
batches. Rank 0 also starts the control process, in which `coordination` communicates with clients and launcher, keeps
the state of all simulations, and obtains the next parameters from the sampler.
"""

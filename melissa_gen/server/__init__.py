"""The training server. Start: `mpirun -n R python -m melissa_gen.server RUN_DIR`.

Every rank: `ingest` receives parts and assembles samples, the reservoir keeps them, `training` draws batches. Rank 0
besides: `coordination` talks to clients and launcher, keeps the bookkeeping of simulations, and asks the sampler for
the next parameters.
"""

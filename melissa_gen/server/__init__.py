"""The training server, one module per duty of a rank.

Every rank: `ingest` receives parts, `assembler` makes samples of them, the reservoir keeps them, `training` draws
batches. Rank 0 besides: `control` talks to clients and launcher, `ledger` knows every simulation, `proposals` asks the
sampler what comes next, `checkpoint` saves. Start: `mpirun -n R python -m melissa_gen.server RUN_DIR`.
"""

"""The protocol with thousands of clients in virtual time: connections, messages, memory, load, and recovery.

    python -m tests.scale [--clients N ...] [--server-ranks N] [--processes N] [--deaths SHARE] [--quick]

`tests/scale/virtual_run.py` says what is real and what is not. The field has 1 MiB; a simulation has 20 time steps of
two seconds. Three simulations follow each other in each client. In the middle of the second one, a tenth of the clients
dies at once. The last columns are those of `tests/scale/published.py`.
"""

import json
import sys
import time

from melissa_gen.builders.memory import bookkeeping_megabytes, staging_slots
from melissa_gen.protocol.descriptors import server_descriptors
from melissa_gen.study import load_study
from tests.scale.processes import COPY_BYTES
from tests.scale.published import published
from tests.scale.virtual_run import VirtualRun

sys.path.insert(0, "tests/benchmarks")
from measure import HEAT, command_line, table

SIMULATIONS, STEPS, STEP_SECONDS = 3, 20, 2.0
COLUMNS = ("quantity", "melissa_gen", "Melissa, training", "Melissa, N x M")


def study_of(clients, processes, ranks, simulations=SIMULATIONS, steps=STEPS):
    """Returns the heat study at another scale, with a field of 1 MiB."""
    return load_study(
        HEAT,
        [
            "simulation.fields={temperature: {shape: [512, 512], dtype: float32}}",
            f"simulation.processes={processes}",
            f"simulation.count={simulations * clients}",
            f"simulation.time_steps={steps}",
            f"server.ranks={ranks}",
            f"launcher.clients={clients}",
            "launcher.backend=slurm",
            "reservoir.watermark=1",
            "training.batch_size=1",
            "sampler.method=sobol",
        ],
    )


def measured(run):
    """Returns the quantities of a run that has ended, by name."""
    study, rank = run.study, run.ranks[0]
    clients, ranks = study.launcher.clients, study.server.ranks
    end, field = run.queue.now, study.sample_bytes
    share = rank.assembler.counters.produced
    control, launcher = run.control.process, run.launcher.process
    others = control.messages + launcher.messages
    size = rank.process.bytes / share + (control.bytes + launcher.bytes) / run.samples
    slots = staging_slots(study)
    return {
        "data connections of a server rank": run.most_connections,
        "connections of rank 0": run.most_connections + 2 * clients + ranks + 1,
        "file descriptors that a server rank needs": server_descriptors(
            clients, study.simulation.processes, ranks, shared_memory=False
        ),
        "connections opened for each simulation": run.opened
        * study.simulation.processes
        / study.simulation.count,
        "messages per sample": rank.process.messages / share + others / run.samples,
        "messages per sample inside a client": 0.0,
        "bytes per sample / bytes of the field": size / field,
        "memory for samples under way in a server rank, GB": slots * field / 1e9,
        "the same, most in use, GB": rank.most_slots * field / 1e9,
        "memory of the records of all simulations in rank 0, MB": bookkeeping_megabytes(study),
        "memory of buffers in a client rank, MB": run.most_channels
        * study.flow.steps
        * field
        / study.simulation.processes
        / 1e6,
        "load of a server rank, %": 100 * rank.process.busy / end,
        "load of rank 0 by control and heartbeats, %": 100 * control.busy / end,
        "longest time that a message waits for rank 0, s": control.wait,
        "load of the launcher, %": 100 * launcher.busy / end,
        "start of the first job to all clients solving, s": run.all_solving,
        "death of a tenth to rank 0 knowing of the last, s": _since(run, run.noticed),
        "death of a tenth to all clients solving, s": _since(run, run.recovered),
        "simulations completed": run.control.ledger.counts()["completed"],
        "simulations retried": run.control.ledger.counts()["retried"],
        "samples lost": run.study.simulation.count * study.simulation.time_steps
        - run.control.ledger.counts()["completed"] * study.simulation.time_steps,
    }


def _since(run, moment):
    return None if moment is None or run.died is None else moment - run.died


def rows_of(run):
    """Returns the rows of the table of a run."""
    ours = measured(run)
    rank = run.ranks[0]
    rate = run.study.launcher.clients / STEP_SECONDS
    copied = rank.process.bytes / rank.process.messages / COPY_BYTES
    seconds = max(rank.process.busy / rank.process.messages - copied, 0.0)
    theirs = published(run.study, rate, seconds)
    return [(name, value, *(one.get(name) for one in theirs)) for name, value in ours.items()]


def main():
    """Prints a table for each number of clients."""
    parser = command_line(__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[1000, 10_000], metavar="N")
    parser.add_argument("--server-ranks", type=int, default=64, metavar="N")
    parser.add_argument("--processes", type=int, default=128, metavar="N")
    parser.add_argument("--deaths", type=float, default=0.1, metavar="SHARE")
    args = parser.parse_args()
    found = {}
    for clients in [100] if args.quick else args.clients:
        ranks, processes = (8, 8) if args.quick else (args.server_ranks, args.processes)
        run = VirtualRun(study_of(clients, processes, ranks), STEP_SECONDS)
        began = time.perf_counter()
        run.run(args.deaths)
        print(f"\n{clients:,} clients of {processes} ranks, {ranks} server ranks", end="; ")
        print(f"simulated in {time.perf_counter() - began:.0f} s")
        if run.control.failure:
            sys.exit(f"the study failed: {run.control.failure}")
        rows = found[clients] = rows_of(run)
        print(table(COLUMNS, rows), flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

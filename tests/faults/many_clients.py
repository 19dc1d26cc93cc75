"""100 clients at once and a small limit on file descriptors: all are served, or the study is refused before its start.

    python -m tests.faults.many_clients [--clients N]

Run by hand: the start of 100 interpreters takes minutes on two cores. The limit is exactly what the study needs
according to `melissa_gen.protocol.descriptors`, and one less.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from melissa_gen.protocol.descriptors import server_descriptors
from tests.conftest import MELISSA_GEN, Runs, wait_for

SOLVER = Path(__file__).parent / "solver.py"
RANKS, STEPS, PATIENCE = 2, 4, 1800


def limited(limit):
    """The command `melissa-gen` under a hard limit on file descriptors."""
    return ("bash", "-c", f'ulimit -n {limit}; exec "$0" "$@"', *MELISSA_GEN)


def study(runs, clients, gate):
    """A study of one simulation for each client, each of which waits half-way until a file exists."""
    changes = {
        "simulation.command": ["python", "solver.py", "--steps", str(STEPS), "--gate", str(gate)],
        "simulation.count": clients,
        "simulation.time_steps": STEPS,
        "simulation.timeout": PATIENCE,
        "server.ranks": RANKS,
        "server.transport": "tcp",
        "server.heartbeat_timeout": 120,
        "launcher.clients": clients,
        "launcher.connect_timeout": PATIENCE,
    }
    return runs.study(changes, solver=SOLVER)


def main():
    """Runs both studies; an assertion fails if a client is neither served nor named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=100)
    clients = parser.parse_args().clients
    needed = server_descriptors(clients, 1, RANKS, shared_memory=True)
    folder = Path(tempfile.mkdtemp(prefix="many-clients-"))
    runs, gate = Runs(folder), folder / "gate"
    try:
        refused = runs.run(study(runs, clients, gate), command=limited(needed - 1))
        assert refused.code == 1 and f"needs {needed} file descriptors" in refused.last_line
        assert not refused.events("client_connected")
        print(f"refused before the start: {refused.last_line}")
        run = runs.start(study(runs, clients, gate), command=limited(needed))
        wait_for(
            lambda: (
                run.process.poll() is not None or len(run.events("simulation_issued")) >= clients
            ),
            "all clients",
            PATIENCE,
        )
        gate.touch()
        run.wait(PATIENCE).assert_finished()
        runs.assert_nothing_left(patience=120)
        print(f"served at once: {len(run.events('client_connected'))} of {clients}")
    finally:
        runs.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

"""One rank of the training server: `mpirun -n R python -m melissa_gen.server RUN_DIR`."""

import gc
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from melissa_gen.errors import MelissaGenError, StudyError
from melissa_gen.logs import WarningCollector, configure_process, log_thread_error
from melissa_gen.run_dir.purpose import Purpose
from melissa_gen.run_dir.server_failure import write_server_failure
from melissa_gen.server.child_process import start_control, start_ingest_process

_log = logging.getLogger("melissa_gen.server")


def main() -> None:
    """Runs this rank; an error in one rank ends all ranks, with one sentence in the log."""
    # Imports create objects that live as long as the process; `run_rank` enables the garbage collector again.
    gc.disable()
    from mpi4py import MPI

    world, run_dir = MPI.COMM_WORLD, Path(sys.argv[1])
    configure_process("server", world.Get_rank())
    try:
        # All processes import their packages side by side.
        control = start_control(run_dir) if world.Get_rank() == 0 else None
        ingest = start_ingest_process(run_dir, world.Get_rank()) if _trains(run_dir) else None
    except (OSError, ValueError) as error:
        reason = f"a process of server rank {world.Get_rank()} can't be started: {error}"
        _log.error("%s", reason)
        write_server_failure(run_dir, reason)
        world.Abort(1)
    from melissa_gen.server.rank import StartedProcesses, run_rank

    threading.excepthook = log_thread_error
    # Rank 0 collects the warnings of all ranks and shows each of them once.
    warnings = WarningCollector()
    logging.getLogger().addHandler(warnings)
    _log.info("process %d of %d on %s", world.Get_rank(), world.Get_size(), os.uname().nodename)
    # A server that receives SIGTERM before it is ready cleans up as after an error.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    try:
        status = run_rank(run_dir, world, StartedProcesses(control, ingest), warnings.take)
    except BaseException as error:
        expected = isinstance(error, SystemExit | MelissaGenError)
        _log.error("%s", error, exc_info=not expected or "MELISSA_GEN_DEBUG" in os.environ)
        sys.stderr.flush()
        reason = str(error) if expected else f"{type(error).__name__}: {error}"
        write_server_failure(run_dir, reason, refused=isinstance(error, StudyError))
        world.Abort(1)
    else:
        # Without it mpirun may take an exit status other than 0 for the failure of a rank, and end the others.
        MPI.Finalize()
        # Everything is closed and written. Freeing the objects of torch at the exit of the interpreter would take
        # seconds, and the launcher would wait for it.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _trains(run_dir: Path) -> bool:
    """Returns whether the run trains; a study without training starts a process that it does not need."""
    run = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
    return Purpose.from_json(run.get("purpose")).trains


if __name__ == "__main__":
    main()

"""One rank of the training server: `mpirun -n R python -m melissa_gen.server RUN_DIR`."""

import os
import signal
import sys
import traceback
from pathlib import Path

from melissa_gen.errors import MelissaGenError


def main() -> None:
    """Runs this rank; an error in one rank ends all of them, with one sentence in the log."""
    from mpi4py import MPI

    from melissa_gen.server.rank import run_rank

    # What was opened is put away: a server that is told to end before it is ready leaves nothing.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    try:
        status = run_rank(Path(sys.argv[1]), MPI.COMM_WORLD)
    except BaseException as error:
        if isinstance(error, SystemExit):
            print(error, file=sys.stderr)
        elif isinstance(error, MelissaGenError) and "MELISSA_GEN_DEBUG" not in os.environ:
            print(f"error: {error}", file=sys.stderr, flush=True)
        else:
            traceback.print_exc()
        sys.stderr.flush()
        MPI.COMM_WORLD.Abort(1)
    else:
        MPI.Finalize()  # before an exit status that mpirun might take for a failure of this rank alone
        sys.exit(status)


if __name__ == "__main__":
    main()

"""Removes environment variables that would make a child process look like an MPI rank of its parent's job."""

import os
import re
from collections.abc import Mapping

__all__ = ["without_mpi_variables"]

# MPI libraries and schedulers identify a rank by these variables. A child process that inherits them would try to join
# its parent's MPI job. The MELISSA_GEN_ variables identify a client job to the server.
_RANK_VARIABLES = re.compile(
    r"MELISSA_GEN_(SERVER|JOB|SIMULATION)$"
    r"|OMPI_|PMI|PMIX_|PRTE_|HYDRA_|HYDI_|MPIEXEC_|MPIR_(?!CVAR)|MPI_LOCAL|PALS_"
    r"|SLURM_(STEP|TASK|PROCID|LOCALID|NODEID|GTIDS|LAUNCH_NODE|SRUN|STEPID|UMASK|CPU_BIND|MPI_TYPE|DISTRIBUTION|PMI)"
)


def without_mpi_variables(environment: Mapping[str, str], *, openmpi: bool) -> dict[str, str]:
    """Returns an environment for a new MPI job, without the variables of the MPI job of this process.

    Args:
        environment: The environment to copy, usually `os.environ`.
        openmpi: Whether Open MPI's `mpirun` may be used. By default it refuses to run as root and to start more ranks
            than cores; variables that permit both are added.
    """
    clean = {key: value for key, value in environment.items() if not _RANK_VARIABLES.match(key)}
    if openmpi:
        clean["PRTE_MCA_rmaps_default_mapping_policy"] = ":oversubscribe"
        clean["OMPI_MCA_rmaps_base_oversubscribe"] = "1"
        if os.geteuid() == 0:
            clean["OMPI_ALLOW_RUN_AS_ROOT"] = clean["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    return clean

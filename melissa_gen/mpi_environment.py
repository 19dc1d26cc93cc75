"""What a process must not inherit, lest it take itself for a rank of its parent's MPI world."""

import os
import re
from collections.abc import Mapping

__all__ = ["without_mpi_variables"]

# Variables by which an MPI library or a scheduler tells a process that it is a rank of a world. A child that
# inherited them would believe that it belongs to its parent's. Ours tell a client whose it is.
_STRIPPED = re.compile(
    r"MELISSA_GEN_(SERVER|JOB|SIMULATION)$"
    r"|OMPI_|PMI|PMIX_|PRTE_|HYDRA_|HYDI_|MPIEXEC_|MPIR_(?!CVAR)|MPI_LOCAL|PALS_"
    r"|SLURM_(STEP|TASK|PROCID|LOCALID|NODEID|GTIDS|LAUNCH_NODE|SRUN|STEPID|UMASK|CPU_BIND|MPI_TYPE|DISTRIBUTION|PMI)"
)


def without_mpi_variables(environment: Mapping[str, str], *, openmpi: bool) -> dict[str, str]:
    """Returns an environment in which a new MPI world does not take itself for a part of another.

    Args:
        environment: Usually `os.environ`.
        openmpi: Whether Open MPI's mpirun may be used: it refuses root and more ranks than cores, and gets the leave
            that it asks for.
    """
    clean = {key: value for key, value in environment.items() if not _STRIPPED.match(key)}
    if openmpi:
        clean["PRTE_MCA_rmaps_default_mapping_policy"] = ":oversubscribe"
        clean["OMPI_MCA_rmaps_base_oversubscribe"] = "1"
        if os.geteuid() == 0:
            clean["OMPI_ALLOW_RUN_AS_ROOT"] = clean["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    return clean

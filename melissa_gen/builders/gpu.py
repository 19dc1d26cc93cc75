"""Whether this machine has a GPU, without importing torch where it has none."""

import functools
from pathlib import Path

from melissa_gen.errors import StudyError
from melissa_gen.study import Study

__all__ = ["check_device", "gpu_here"]

_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Files of the drivers of NVIDIA, of AMD, and of GPUs under the Windows Subsystem for Linux."""


@functools.cache
def gpu_here() -> bool:
    """Returns whether torch finds a GPU on this machine.

    Importing torch takes seconds, which a machine without the driver of a GPU can save.
    """
    if not any(Path(file).exists() for file in _DRIVERS):
        return False
    import torch

    return torch.cuda.is_available()


def check_device(study: Study) -> None:
    """Checks that the server's device exists, if the server runs on this machine.

    Raises:
        StudyError: It does not exist.
    """
    if study.launcher.backend == "local" and study.server.device == "cuda" and not gpu_here():
        msg = "server.device is 'cuda', but torch finds no CUDA device on this machine; legal here: cpu, auto"
        raise StudyError(msg)

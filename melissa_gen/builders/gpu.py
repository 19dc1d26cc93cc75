"""Whether this machine has a GPU, without importing torch where it has none."""

import functools
from pathlib import Path

from melissa_gen.errors import StudyError
from melissa_gen.study import Study

__all__ = ["check_device", "gpu_here"]

_DRIVERS = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Files of the drivers of NVIDIA (twice: the device may be created by its first use), of AMD, and of GPUs under the
Windows Subsystem for Linux."""


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
    """Checks that the device of the training exists, if the server runs on this machine.

    Raises:
        StudyError: It does not exist.
    """
    if not study.training.enabled or study.launcher.backend != "local":
        return
    if study.server.device != "cuda" or gpu_here():
        return
    # A driver that is not known here must not keep a GPU from its use.
    import torch

    if not torch.cuda.is_available():
        msg = "server.device is 'cuda', but torch finds no CUDA device on this machine; legal here: cpu, auto"
        raise StudyError(msg)

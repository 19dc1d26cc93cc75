"""The global state of a process, which a test must leave as it found it: snapshots and their differences."""

import logging
import os
import signal
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["GlobalState"]

# PSI/J catches SIGCHLD for good, so that one is left out.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
# Written by pytest for each phase of a test, and by libraries and benchmarks when they are imported.
_IGNORED = {
    *("PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR", "_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
}


@dataclass(frozen=True)
class GlobalState:
    """The global state of the process at one moment.

    Attributes:
        values: Name of a part to its value.
    """

    values: dict[str, Any]

    @classmethod
    def now(cls) -> "GlobalState":
        """Takes a snapshot. Modules that are not imported yet are not imported for it."""
        root = logging.getLogger()
        ours = logging.getLogger("melissa_gen")
        values: dict[str, Any] = {
            "environment": {k: v for k, v in os.environ.items() if k not in _IGNORED},
            "working directory": os.getcwd(),
            # torch.compile and setuptools add folders of their own.
            "sys.path": [
                p for p in sys.path if "site-packages" not in p and "torchinductor" not in p
            ],
            "signal handlers": {number.name: signal.getsignal(number) for number in _SIGNALS},
            "log levels": (root.level, ours.level),
            "log handlers": [h for h in (*root.handlers, *ours.handlers) if _lasting(h)],
            "numpy errors": np.geterr(),
        }
        if (torch := sys.modules.get("torch")) is not None:
            values["torch default type"] = torch.get_default_dtype()
            values["torch threads"] = torch.get_num_threads()
            values["torch matrix products"] = torch.get_float32_matmul_precision()
            values["torch keeps tiny numbers"] = bool(torch.tensor([1e-39]).mul(1.0).item())
            values["torch gradients"] = torch.is_grad_enabled()
            values["torch deterministic"] = torch.are_deterministic_algorithms_enabled()
        return cls(values)

    def changes(self, later: "GlobalState") -> list[str]:
        """Returns a line for each part that differs in a later snapshot."""
        return [
            f"{name}: {_short(self.values[name], later.values[name])}"
            for name in self.values
            if self.values[name] != later.values[name]
        ]

    def restore(self) -> None:
        """Restores the environment, the working folder and the signal handlers."""
        for key in set(os.environ) - set(self.values["environment"]) - _IGNORED:
            del os.environ[key]
        os.environ.update(self.values["environment"])
        os.chdir(self.values["working directory"])
        for name, handler in self.values["signal handlers"].items():
            if handler is not None:
                signal.signal(signal.Signals[name], handler)


def _lasting(handler: logging.Handler) -> bool:
    """Whether a handler does not belong to pytest, whose handlers change between the phases of a test."""
    return not type(handler).__module__.startswith("_pytest")


def _short(before: Any, after: Any) -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [k for k in {*before, *after} if before.get(k) != after.get(k)]
        return ", ".join(f"{k} {before.get(k)!r} -> {after.get(k)!r}" for k in sorted(keys))
    return f"{before!r} -> {after!r}"

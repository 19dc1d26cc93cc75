"""Online training of neural surrogates from running simulations.

Data passes through the packages in this order: `client` (in the solver) -> `protocol` (messages) -> `server` (ingest
and assembly) -> `reservoir` -> `surrogates` (training) -> `sampling` (choice of the next parameters) -> `client`.

The Python interface consists of `Study`, `run`, `resume`, `Run` and `compare`. They are imported on first use, so that
`import melissa_gen` is cheap in a solver.

Example:
    >>> import melissa_gen
    >>> study = melissa_gen.Study.load("study.yaml", {"training.batch_size": 64})
    >>> run = melissa_gen.run(study)
    >>> run.surrogate().predict({"initial_temperature": 300.0}, time=0.5)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from melissa_gen.api import compare, resume, run
    from melissa_gen.runs import Run, RunFailedError
    from melissa_gen.study import Study

__all__ = ["Run", "RunFailedError", "Study", "__version__", "compare", "resume", "run"]

__version__ = "0.2.0"

_HOMES = {
    "Run": "melissa_gen.runs",
    "RunFailedError": "melissa_gen.runs",
    "Study": "melissa_gen.study",
    "compare": "melissa_gen.api",
    "resume": "melissa_gen.api",
    "run": "melissa_gen.api",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

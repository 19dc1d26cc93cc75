"""Command line parsing and error handling of the executables in this folder."""

import argparse
import contextlib
import difflib
import io
import math
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NoReturn

from mpi4py import MPI

__all__ = ["Parser", "end_all_ranks_on_error", "field_names", "merged", "number", "only_rank_zero"]


class Parser(argparse.ArgumentParser):
    """Argument parser that shows defaults and reports errors in one sentence."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Prints one sentence without the usage text and exits."""
        self.exit(2, f"{self.prog}: error: {message} (--help lists the options)\n")


def number(
    kind: type[int] | type[float], least: float = -math.inf, above: float = -math.inf
) -> Callable[[str], float]:
    """Returns a converter of option values: numbers of type `kind`, >= `least` and > `above`."""
    what = "an integer" if kind is int else "a number"
    what += f" above {above:g}" if above > -math.inf else ""
    what += f" of at least {least:g}" if least > -math.inf else ""

    def convert(text: str) -> float:
        with contextlib.suppress(ValueError):
            value = kind(text)
            if math.isfinite(value) and value >= least and value > above:
                return value
        message = f"'{text}' is not {what}"
        raise argparse.ArgumentTypeError(message)

    return convert


def field_names(legal: Sequence[str]) -> Callable[[str], list[str]]:
    """Returns a converter of option values: comma-separated names, each one of `legal`."""

    def convert(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in legal]:
            message = f"there is no field '{unknown[0]}'; legal are {', '.join(legal)}"
            raise argparse.ArgumentTypeError(message)
        if len(set(names)) < len(names):
            message = f"'{text}' names a field twice"
            raise argparse.ArgumentTypeError(message)
        return names

    return convert


def merged(
    defaults: Mapping[str, float], given: Mapping[str, float], more: Iterable[str] = ()
) -> dict[str, float]:
    """Merges the parameters of a simulation with the defaults of the command line.

    Args:
        defaults: values of the command line.
        given: values of the study, which take precedence.
        more: further legal names, without a default.

    Raises:
        ValueError: the study has a parameter that the solver does not know.
    """
    legal = [*defaults, *more]
    for name in given:
        if name not in legal:
            near = difflib.get_close_matches(name, legal, 1)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            message = f"unknown parameter '{name}'{hint}; legal: {', '.join(legal)}"
            raise ValueError(message)
    return {**defaults, **given}


@contextlib.contextmanager
def only_rank_zero(comm: MPI.Comm) -> Iterable[None]:
    """Suppresses the output of all ranks except rank 0, so that an error is printed once."""
    with contextlib.ExitStack() as stack:
        if comm.Get_rank() > 0:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield


def end_all_ranks_on_error(main: Callable[[], None]) -> None:
    """Runs `main`. After an exception all ranks are aborted, because they may wait for this one."""
    try:
        main()
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        MPI.COMM_WORLD.Abort(1)

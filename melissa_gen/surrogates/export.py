"""Exports a surrogate to a file that runs without melissa_gen: a torch.export program, or ONNX."""

import json
import logging
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from melissa_gen.errors import RunError
from melissa_gen.surrogates.autoregressive_surrogate import AutoregressiveSurrogate
from melissa_gen.surrogates.direct_surrogate import Surrogate
from melissa_gen.surrogates.input_field_surrogate import InputFieldSurrogate
from melissa_gen.surrogates.neural_operators import any_number_of_rows
from melissa_gen.surrogates.trajectory_surrogate import TrajectorySurrogate

__all__ = ["export"]

FORMATS = {".pt2": "a torch.export program", ".onnx": "ONNX"}
ABOUT = "about.json"
_ROWS = 3


class _Physical(nn.Module):
    """The surrogate with the scaling of inputs and outputs, and all fields in a mapping."""

    def __init__(self, surrogate: Surrogate) -> None:
        super().__init__()
        self.surrogate = surrogate

    def forward(
        self, parameters: torch.Tensor, time: torch.Tensor, *fields: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        answer = self.surrogate(parameters, time, *fields)
        return answer if isinstance(answer, dict) else {next(iter(self.surrogate.fields)): answer}


class _Trajectory(nn.Module):
    """A surrogate of whole trajectories, to which no time is given."""

    def __init__(self, surrogate: Surrogate) -> None:
        super().__init__()
        self.surrogate = surrogate

    def forward(self, parameters: torch.Tensor, *fields: torch.Tensor) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = self.surrogate(parameters, *fields)
        return found


def export(surrogate: Surrogate, path: str | Path, batch_size: int | None = None) -> Path:
    """Writes a program that maps physical parameters and times to physical fields.

    The program takes `parameters` `(n, d)`, in the order of `surrogate.parameter_bounds`, and `time` `(n,)`, both
    float64, and returns each field `(n, *shape)`. A surrogate of the task `autoregressive` also takes the last steps of
    each field, `(n, history, *shape)`, then each input field, `(n, *shape)`, and returns the next step. One of the task
    `operator` also takes each input field; one of whole trajectories takes no time, and returns each field
    `(n, T, *shape)`. Fields are float32. The file describes them as JSON: the extra file `about.json` of a torch.export
    program, the property `about` of an ONNX model. It holds the names and bounds of the `parameters`, the first and
    last of the `times`, and the shapes of the `fields` and `inputs`; of an autoregressive surrogate also its `history`,
    and the `interval` from the last given step to the predicted one.

    Args:
        surrogate: The surrogate.
        path: The file: `.pt2` for `torch.export.load`, `.onnx` for any ONNX runtime.
        batch_size: The number of rows n that the program takes; None allows any number.

    Returns:
        The path.

    Raises:
        RunError: An argument is not legal, the suffix is unknown, a package is missing, or the network can't be
            exported.

    Example:
        >>> export(load("runs/heat-1/checkpoints/final"), "heat.pt2")
        >>> program = torch.export.load("heat.pt2").module()
        >>> program(parameters, time)["temperature"].shape
        torch.Size([5, 100, 100])
    """
    path = Path(path)
    _check(surrogate, path, batch_size)
    rows = batch_size or _ROWS
    example = torch.from_numpy(surrogate.middle()).to(surrogate.center).repeat(rows, 1)
    fields = surrogate.example_fields(rows)
    whole = isinstance(surrogate, TrajectorySurrogate)
    single = [example[:, :-1].contiguous(), *([] if whole else [example[:, -1].contiguous()])]
    rows_vary = {0: torch.export.Dim("n")}
    # The fields are variable arguments, which have one entry together, and none if there are no fields.
    of_fields = [(rows_vary,) * len(fields)] if fields else []
    any_number = None if batch_size else (*(rows_vary for _ in single), *of_fields)
    given = (*single, *fields.values())
    program = _Trajectory(surrogate) if whole else _Physical(surrogate)
    training = surrogate.training
    surrogate.eval()
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _write(partial, path.suffix, program, given, any_number, _about(surrogate))
        os.replace(partial, path)
    except OSError as error:
        message = f"{path} can't be written: {error.strerror or error}"
        raise RunError(message) from error
    finally:
        partial.unlink(missing_ok=True)
        surrogate.train(training)
    return path


def _check(surrogate: object, path: Path, batch_size: object) -> None:
    """Raises a `RunError` on an argument of `export` that is not legal."""
    if not isinstance(surrogate, Surrogate):
        message = (
            f"surrogate is {str(surrogate)[:60]!r}; load it first, as in export(load(folder), path)"
        )
        raise RunError(message)
    if batch_size is not None and not (type(batch_size) is int and batch_size > 0):
        message = f"batch_size is {batch_size}; legal are whole numbers from 1, and None for any number of rows"
        raise RunError(message)
    if path.suffix not in FORMATS:
        legal = ", ".join(f"{suffix} ({what})" for suffix, what in FORMATS.items())
        message = f"{path}: the suffix decides the format; legal are {legal}"
        raise RunError(message)
    if path.suffix == ".onnx" and any(one.is_complex() for one in surrogate.parameters()):
        message = (
            f"{surrogate.class_path} can't be exported to ONNX, which has no complex numbers as in its weights; export "
            "it as a .pt2 file"
        )
        raise RunError(message)


def _write(
    path: Path,
    suffix: str,
    program: _Physical | _Trajectory,
    given: tuple[torch.Tensor, ...],
    any_number: Any,
    about: str,
) -> None:
    try:
        # Complex weights can't be traced with gradients.
        with any_number_of_rows(), torch.no_grad():
            exported = torch.export.export(program, given, dynamic_shapes=any_number)
    except Exception as error:
        fixed = "specialized it to be a constant" in str(error)
        reason = (
            "it works for one number of rows only: use x.shape[0] in place of len(x) in the network, or give batch_size"
            if fixed
            else f"{type(error).__name__}: {_first_line(error)}"
        )
        message = f"{program.surrogate.class_path} can't be exported: {reason}"
        raise RunError(message) from error
    if suffix == ".pt2":
        with path.open("wb") as file:
            torch.export.save(exported, file, extra_files={ABOUT: about})
        return
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    given_fields = program.surrogate.example_fields(1)
    try:
        model = torch.onnx.export(
            exported,
            input_names=[
                *_single_names(program.surrogate),
                *_given_names(program.surrogate, given_fields),
            ],
            output_names=list(program.surrogate.fields),
            dynamo=True,
            verbose=False,
        )
        assert model is not None
        model.model.metadata_props["about"] = about
        model.save(path)
    except ImportError as error:
        message = f"ONNX needs more packages: pip install 'melissa-gen[onnx]' ({error})"
        raise RunError(message) from error
    except Exception as error:
        if isinstance(error, OSError):
            raise
        message = f"{program.surrogate.class_path} can't be exported to ONNX: {_first_line(error)}"
        raise RunError(message) from error


def _single_names(surrogate: Surrogate) -> list[str]:
    """Returns the names of the inputs that have one row of numbers or one number."""
    return ["parameters"] if isinstance(surrogate, TrajectorySurrogate) else ["parameters", "time"]


def _given_names(surrogate: Surrogate, fields: Iterable[str]) -> list[str]:
    """Returns the names of the inputs beside parameters and time; those of given steps differ from the outputs."""
    return [f"last_{name}" if name in surrogate.fields else name for name in fields]


def _about(surrogate: Surrogate) -> str:
    known: dict[str, Any] = {
        "parameters": surrogate.parameter_bounds,
        "times": surrogate.times,
        "fields": surrogate.fields,
    }
    if isinstance(surrogate, InputFieldSurrogate) and surrogate.inputs:
        known["inputs"] = surrogate.inputs
    if isinstance(surrogate, TrajectorySurrogate):
        known["time_steps"] = surrogate.time_steps
    if isinstance(surrogate, AutoregressiveSurrogate):
        known["history"] = surrogate.history
        known["interval"] = surrogate.stride * surrogate.interval
    return json.dumps(known)


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else ""

"""Tries a network in training before a study starts, so that its mistakes are found in seconds and in one sentence."""

import torch

from melissa_gen.errors import StudyError
from melissa_gen.surrogates.direct_surrogate import Surrogate
from melissa_gen.surrogates.training_loss import TrainingLoss

__all__ = ["TrainingTrial"]


class TrainingTrial:
    """Training steps of a surrogate on random data. They change its weights: use a surrogate made for the trial.

    Args:
        surrogate: The surrogate.
        optimizer: An optimizer of its parameters.
        loss: The loss; default: the mean squared error.
        bf16: Whether the network computes in bfloat16 where that is safe.

    Example:
        >>> trial = TrainingTrial(surrogate, torch.optim.Adam(surrogate.parameters()))
        >>> trial.run(batch_size=32)
    """

    def __init__(
        self,
        surrogate: Surrogate,
        optimizer: torch.optim.Optimizer,
        loss: TrainingLoss | None = None,
        *,
        bf16: bool = False,
    ) -> None:
        self._surrogate, self._optimizer, self._bf16 = surrogate, optimizer, bf16
        self._loss = loss or TrainingLoss(surrogate)
        self._who = f"surrogate.class '{surrogate.class_path}'"

    def run(self, batch_size: int) -> None:
        """Takes one step with each size of a batch that occurs, and predicts one row in evaluation mode.

        Args:
            batch_size: Rows of a full batch. The first batch of a study may be shorter, down to two rows.

        Raises:
            StudyError: The network can't be trained; one sentence for each kind of mistake.
        """
        for rows in sorted({batch_size, min(batch_size, 2)}, reverse=True):
            self.step(rows)
        self._surrogate.eval()
        with torch.no_grad():
            output = self._output(1, "evaluation mode after a training step")
        self._surrogate.train()
        self._require(
            torch.isfinite(output).all(), "predicts NaN or infinity after a training step"
        )

    def step(self, rows: int) -> None:
        """Takes one training step: forward pass, backward pass and optimizer.

        Args:
            rows: Rows of the batch.

        Raises:
            StudyError: The step fails, or is not finite.
        """
        self._surrogate.train()
        output = self._output(rows, "training mode")
        members = self._surrogate.members(output)
        self._require(
            torch.isfinite(members).all(),
            "returns NaN or infinity for inputs within the parameters' bounds",
        )
        loss = self._loss_of(members)
        self._require(
            loss.requires_grad,
            "has no effect on the loss that could be trained: its output depends on no parameter "
            "that requires a gradient",
        )
        try:
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
        except Exception as error:
            self._fail(f"fails in the backward pass: {_text(error)}", error)
        gradients = [w.grad for w in self._surrogate.parameters() if w.grad is not None]
        self._require(
            all(bool(torch.isfinite(gradient).all()) for gradient in gradients),
            "has gradients that are NaN or infinite for inputs within the parameters' bounds",
        )
        try:
            self._optimizer.step()
        except Exception as error:
            name = type(self._optimizer).__name__
            self._fail(f"can't be trained with training.optimizer {name}: {_text(error)}", error)

    def _loss_of(self, members: torch.Tensor) -> torch.Tensor:
        """Returns the loss for random targets, after a check that it can be trained with."""
        if self._surrogate.network_shape != self._surrogate.output_shape:
            # The time steps of a trajectory are rows of their own.
            members = members.movedim(1, 2).flatten(0, 1)
        target = torch.randn_like(members[:, 0], dtype=torch.float32)
        try:
            loss = self._loss.of_members(members, target).mean()
        except StudyError:
            raise
        except Exception as error:
            message = f"training.loss fails on a batch of {len(target)} rows: {_text(error)}"
            raise StudyError(message) from error
        if not torch.isfinite(loss):
            message = "training.loss returns NaN or infinity for standardized values"
            raise StudyError(message)
        if members.requires_grad and not loss.requires_grad:
            message = "training.loss has no gradient: does it detach the output, or leave torch?"
            raise StudyError(message)
        return loss

    def _output(self, rows: int, mode: str) -> torch.Tensor:
        """Returns the network's output for random inputs within the bounds, after a check of type and shape."""
        surrogate = self._surrogate
        scaled = surrogate.random_inputs(rows)
        try:
            with torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
                output = surrogate.network(scaled)
        except Exception as error:
            hint = "; is a normalization over a batch of one row the cause?" if rows == 1 else ""
            self._fail(f"fails in {mode} on a batch of {rows} rows: {_text(error)}{hint}", error)
        members = () if surrogate.ensemble is None else (surrogate.ensemble[1],)
        wanted = (rows, *members, *surrogate.network_shape)
        found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        self._require(
            found == wanted,
            f"returns {found} in {mode}; it must be one tensor {wanted}, in training mode as well as in "
            "evaluation mode",
        )
        self._require(
            not output.is_complex(),
            "returns complex values; return their real part or their modulus",
        )
        checked: torch.Tensor = output
        return checked

    def _require(self, condition: object, otherwise: str) -> None:
        if not condition:
            self._fail(otherwise)

    def _fail(self, what: str, cause: Exception | None = None) -> None:
        message = f"{self._who} {what}"
        raise StudyError(message) from cause


def _text(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"

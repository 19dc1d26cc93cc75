"""A plain training loop, while a thread of the same process copies the fields of a peer into a table.

The network and the batches are those of `trainer_beside_ingest.py`: the published MLP on one torch thread, 32 samples
of 40 KB. The loop draws from a table that is full from the start; the thread overwrites its rows. No core is reserved.
Three kinds of windows take turns: nothing is taken from the peer, 1,000 fields a second, as many as arrive.
"""

import itertools
import statistics
import threading
import time
from typing import Any

import numpy as np
from sources import Ready

VALUES, STEPS, ROWS, BATCH = 10_000, 100, 2000, 32
MODES = {"alone": 0.0, "1,000/s": 1000.0, "saturated": float("inf")}
"""Fields per second that the thread takes."""
MOST = 100_000
"""More fields per second than any peer brings."""
TURNS, SETTLE = 4, 0.5


class Taker:
    """Takes fields from a peer at a rate that can be changed, and copies them into a table.

    Attributes:
        rate: Fields per second.
        fields: The table `(rows, values)`.
        count: Fields taken so far.
        error: What went wrong.
    """

    def __init__(self, stream: Any) -> None:
        self.rate = MODES["saturated"]
        self.fields = np.random.default_rng(0).standard_normal((ROWS, VALUES), np.float32)
        self.count, self.error = 0, ""
        self._stream, self._ended = stream, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        due = time.perf_counter()
        try:
            for _, _, field in self._stream:
                self.fields[self.count % ROWS] = field
                self.count += 1
                now = time.perf_counter()
                while not self.rate and not self._ended.is_set():
                    self._ended.wait(0.005)
                due = max(due + 1 / self.rate, now - 0.05) if self.rate else now
                if due > now and self._ended.wait(due - now):
                    break
                if self._ended.is_set():
                    break
            else:
                self.error = "the stream has ended early"
            self._stream.close()
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"

    def close(self) -> None:
        """Ends the thread."""
        self._ended.set()
        self._thread.join(timeout=60)


def beside(peer: Any, seconds: float) -> dict[str, float]:
    """Returns the batches and fields per second of each kind of window, as medians.

    Args:
        peer: The module of the peer.
        seconds: Length of a window.
    """
    total = TURNS * (seconds + SETTLE) * MOST
    source = Ready(VALUES, STEPS, int(total / STEPS))
    taker = None if getattr(peer, "FORKS", False) else Taker(peer.stream(source))
    step = training_step()
    # A process must not be forked while another thread imports.
    taker = taker or Taker(peer.stream(source))
    while not taker.count and not taker.error:
        time.sleep(0.01)
    found: dict[str, list[tuple[float, float]]] = {mode: [] for mode in MODES}
    for turn in range(TURNS):
        for mode in list(MODES)[:: -1 if turn % 2 else 1]:
            taker.rate = MODES[mode]
            _batches(step, taker, SETTLE)
            found[mode].append(_batches(step, taker, seconds))
    taker.close()
    if taker.error:
        raise RuntimeError(taker.error)
    alone = [batches for batches, _ in found["alone"]]
    result = {"alone": statistics.median(alone)}
    for mode in ("1,000/s", "saturated"):
        shares = [batches / a for (batches, _), a in zip(found[mode], alone, strict=True)]
        result[mode] = statistics.median(shares)
        result[f"fields, {mode}"] = statistics.median(fields for _, fields in found[mode])
    return result


def _batches(step: Any, taker: Taker, seconds: float) -> tuple[float, float]:
    """Trains for some seconds; returns batches and fields per second."""
    began, before, batches = time.perf_counter(), taker.count, 0
    while time.perf_counter() - began < seconds and not taker.error:
        step(taker.fields)
        batches += 1
    passed = time.perf_counter() - began
    return batches / passed, (taker.count - before) / passed


def training_step() -> Any:
    """Returns a function that trains on one batch of a table's rows."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = (6, 256, 256, VALUES)
    layers: list[torch.nn.Module] = []
    for inner, outer in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(inner, outer), torch.nn.SiLU()]
    network = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    random = np.random.default_rng(0)
    inputs = torch.from_numpy(random.random((ROWS, sizes[0]), np.float32))

    def step(table: Any) -> None:
        rows = random.integers(ROWS, size=BATCH)
        output = network(inputs[rows])
        loss = (output - torch.from_numpy(table[rows])).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step

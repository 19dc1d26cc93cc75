"""Cases, methods and published figures of `online_samplers.py`, the comparison of Breed and OGAS with uniform draws."""

from dataclasses import dataclass
from typing import Any

__all__ = ["CASES", "METHODS", "PUBLISHED", "Case"]


@dataclass(frozen=True)
class Case:
    """A study of `simulations/` in the size of the comparison.

    Args:
        part: `a`, the one-dimensional equations of the paper on Breed; `b`, the flows of the papers on OGAS.
        study: file of the study, relative to `simulations/`.
        command: of the simulation.
        shapes: field name to shape.
        steps: predicted time steps; the one that is given is one more.
        simulations: of the study.
        capacity: of the reservoir, in simulations.
        test: simulations of the test set.
        batch: windows of a batch.
        learning_rate: the first one; the last is a tenth of it.
        network: class and arguments of the surrogate.
        draws: of each window.
    """

    part: str
    study: str
    command: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]]
    steps: int
    simulations: int
    capacity: int
    test: int
    batch: int
    learning_rate: float
    network: tuple[str, dict[str, Any]]
    draws: int = 4

    @property
    def batches(self) -> int:
        """Number of batches of a run."""
        return self.simulations * self.steps * self.draws // self.batch


_FNO_1D = ("FNO", {"n_modes": [24], "hidden_channels": 16, "n_layers": 3})
_FNO_2D = ("FNO", {"n_modes": [16, 16], "hidden_channels": 16, "n_layers": 4})
_UNET_2D = ("UNet", {"width": 16, "levels": 3})


def _line(study: str, *command: str) -> Case:
    """A one-dimensional equation: 128 points, 75 time steps, 240 simulations, 20 of them in the reservoir."""
    command = ("python", *command, "--resolution", "128", "--steps", "75")
    sizes = (75, 240, 20, 200, 64, 2e-3)
    return Case("a", study, command, {"u": (128,)}, *sizes, _FNO_1D)


def _plane(
    study: str, command: tuple[str, ...], fields: tuple[str, ...], network: tuple[str, Any]
) -> Case:
    """A flow on 64 x 64 points: 30 time steps, 300 simulations, 30 of them in the reservoir."""
    command = ("python", *command, "--resolution", "64")
    sizes = (30, 300, 30, 100, 16, 2e-3)
    return Case("b", study, command, dict.fromkeys(fields, (64, 64)), *sizes, network)


_FLOWS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "plane_ks": ("kuramoto_sivashinsky/plane.yaml", ("plane.py", "--steps", "30"), ("u",)),
    "gray_scott": (
        "gray_scott/study.yaml",
        ("gray_scott.py", "--steps", "30", "--interval", "30"),
        ("a", "b"),
    ),
    "kolmogorov": (
        "navier_stokes/kolmogorov_autoregressive.yaml",
        # This solver does not send its initial state.
        ("kolmogorov.py", "--steps", "31", "--substeps", "12", "--forcing-amplitude", "0.25"),
        ("vorticity",),
    ),
}

CASES = {
    "kdv": _line("kdv/study.yaml", "kdv.py"),
    "ks": _line("kuramoto_sivashinsky/study.yaml", "kuramoto_sivashinsky.py"),
    "conservative_ks": _line(
        "kuramoto_sivashinsky/conservative.yaml",
        *("kuramoto_sivashinsky.py", "--form", "conservative"),
    ),
    **{f"{name}-fno": _plane(*flow, _FNO_2D) for name, flow in _FLOWS.items()},
    **{f"{name}-unet": _plane(*flow, _UNET_2D) for name, flow in _FLOWS.items()},
}

# Both published methods have no importance weights, and generations as large as the reservoir (None here).
_UNWEIGHTED = {"training.importance_exponent": 0.0}
METHODS: dict[str, dict[str, Any]] = {
    "uniform": {"sampler": {"method": "uniform"}},
    "sobol": {"sampler": {"method": "sobol"}},
    "breed": {
        "sampler": {
            "method": "breed",
            "difficulty": "delta_loss",
            "generation_size": None,
            "arguments": {"share_start": 0.0, "share_end": 0.7},
        },
        **_UNWEIGHTED,
    },
    "ogas": {
        "sampler": {
            "method": "conditional_diffusion",
            "generation_size": None,
            "arguments": {"hidden": 1024, "share_end": 0.7, "breakpoint": 4},
        },
        **_UNWEIGHTED,
    },
    "adaptive": {"sampler": {"method": "adaptive"}},
}

PUBLISHED: dict[str, dict[str, dict[str, float]]] = {
    "a": {
        "breed": {"mean": 1.31, "std": 3.23, "max": 4.75},
        "uniform, new draws": {"mean": 1.17, "std": 1.17, "max": 1.11},
    },
    "b": {
        "ogas": {"mean": 0.97, "std": 1.66, "p99": 1.42, "max": 1.64},
        "ogas, disagreement": {"mean": 0.96, "std": 1.50, "p99": 1.32, "max": 1.47},
        "breed": {"mean": 0.92, "std": 1.42, "p99": 1.23, "max": 1.17},
    },
}
"""Uniform's error divided by the method's, as the papers give it for all of their equations together."""

"""Draws the pictures of the page "Which sampler, when": `python tests/benchmarks/sampler_pictures.py`.

One shows where three methods put their points if the error of the surrogate is known, smooth or with a step. The other
shows the adaptive share of the default in two closed loops: one in which difficulties are predictable, and one in which
they are random.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling import Evidence, Prior, create
from melissa_gen.sampling.acquisition.base_acquisition import Acquisition
from melissa_gen.sampling.adaptive.diffusion_posterior import DiffusionPosterior
from melissa_gen.sampling.adaptive.pool import Pool
from melissa_gen.sampling.designs.quasi_random import even_draws

Array = NDArray[np.float64]

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pages" / "how-to" / "pictures"
_POINTS, _BETA = 150, 1.4
_SEEDS, _SIZE = 8, 10
_PRIOR = Prior.from_mapping({name: {"low": 0.0, "high": 1.0} for name in ("x", "y")})


@dataclass(frozen=True)
class Smooth(Acquisition):
    """A hill."""

    def value_and_gradient(self, unit: Array) -> tuple[Array, Array]:
        away = (unit - (0.7, 0.65)) / (0.16, 0.22)
        return -0.5 * (away**2).sum(axis=1), -away / (0.16, 0.22)


@dataclass(frozen=True)
class Step(Acquisition):
    """Ten times as large beyond a line; the gradient is 0 on both sides."""

    def value_and_gradient(self, unit: Array) -> tuple[Array, Array]:
        return np.where(unit[:, 0] > 0.7, np.log(10.0), 0.0), np.zeros_like(unit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=PICTURES, help="where the pictures go")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    draw_points(folder / "points.png")
    draw_share(folder / "share.png")


def draw_points(path: Path) -> None:
    """Where three methods put their points, on the acquisition, which is darker where it is larger."""
    rng = np.random.default_rng(3)
    methods: dict[str, Callable[[Acquisition], Array]] = {
        "sobol": lambda _: create("sobol", _PRIOR, 3).suggest(_POINTS).points,
        "adaptive": lambda a: Pool(even_draws(_PRIOR), seed=3).next(_POINTS, a, _BETA, rng),
        "diffusion_posterior": lambda a: DiffusionPosterior(2, seed=3).next(_POINTS, a, _BETA, rng),
    }
    targets = {"smooth error": Smooth(), "error with a step": Step()}
    axis = (np.arange(100) + 0.5) / 100
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    figure, panels = plt.subplots(
        2, 3, figsize=(7.2, 5.0), layout="constrained", sharex=True, sharey=True
    )
    for row, (title, acquisition) in zip(panels, targets.items(), strict=True):
        image = np.exp(acquisition.value(grid)).reshape(100, 100)
        for panel, (name, draw) in zip(row, methods.items(), strict=True):
            panel.imshow(image, origin="lower", extent=(0, 1, 0, 1), cmap="Blues", alpha=0.6)
            panel.plot(*draw(acquisition).T, ".", color="black", markersize=3)
            panel.set(xticks=(0, 1), yticks=(0, 1))
            panel.set_title(name, fontsize="medium")
        row[0].set_ylabel(title)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def draw_share(path: Path) -> None:
    """The adaptive share of the default sampler over two closed loops, mean over the seeds."""
    figure, axes = plt.subplots(figsize=(6.0, 3.2), layout="constrained")
    loops: dict[str, Callable[[Array], Array]] = {
        "difficulties follow from the parameters": lambda x: 2.0 * Smooth().value(x),
        "difficulties are random": lambda x: np.zeros(len(x)),
    }
    for name, log_difficulty in loops.items():
        shares = np.mean([_shares(log_difficulty, seed) for seed in range(_SEEDS)], axis=0)
        axes.plot(_SIZE * np.arange(len(shares)), shares, ".-", label=name)
    axes.set(xlabel="simulations", ylabel="share of adaptive points", ylim=(-0.03, 1.0))
    axes.axhline(0.9, color="gray", linewidth=0.8, linestyle=":")
    axes.legend(loc="center right", fontsize="small")
    axes.grid(visible=True, alpha=0.3)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _shares(log_difficulty: Callable[[Array], Array], seed: int) -> list[float]:
    """Returns the adaptive share of each generation."""
    rng = np.random.default_rng(seed)
    sampler = create("adaptive", _PRIOR, seed, arguments={"guide": "difficulty"})
    shares = []
    for generation in range(12):
        points = sampler.suggest(_SIZE).points
        shares.append(sampler.diagnostics()["share"])
        difficulty = np.exp(log_difficulty(points) + 0.5 * rng.standard_normal(_SIZE))
        sampler.ingest(
            [
                Evidence(_SIZE * generation + k, point, float(difficulty[k]))
                for k, point in enumerate(points)
            ]
        )
    return shares


if __name__ == "__main__":
    main()

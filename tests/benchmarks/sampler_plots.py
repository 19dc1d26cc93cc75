"""Two figures of a comparison: the distribution of the errors, and the points of each method."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sampler_problems import Problem

Cells = dict[str, list[dict[str, Any]]]


def draw_errors(cells: Cells, path: Path) -> None:
    """The share of test simulations with a larger error, over all seeds; the tail is at the lower right."""
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for k, (method, found) in enumerate(cells.items()):
        errors = np.sort(np.concatenate([cell["errors"] for cell in found]))
        share = 1.0 - np.arange(len(errors)) / len(errors)
        axes.plot(errors, share, "-" if k < 10 else "--", label=method, linewidth=1.3)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="error of a simulation / standard deviation of the field",
        ylabel="share of simulations with more",
    )
    axes.legend(fontsize="small")
    axes.grid(visible=True, which="major", alpha=0.3)
    _save(figure, path)


def draw_points(problem: Problem, cells: Cells, path: Path) -> None:
    """Where the points of the first seed lie: the first parameter and the third (or last) one, in the unit cube."""
    prior = problem.prior
    across, down = 0, min(2, prior.dimension - 1)
    columns = min(4, len(cells))
    rows = -(-len(cells) // columns)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(2.1 * columns, 2.1 * rows),
        layout="constrained",
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for axes in grid.flat:
        axes.set_visible(False)
    for axes, (method, found) in zip(grid.flat, cells.items(), strict=False):
        unit = prior.to_unit(found[0]["points"])
        axes.set_visible(True)
        axes.scatter(unit[:, across], unit[:, down], s=5, c=np.arange(len(unit)), cmap="viridis")
        axes.set_title(method, fontsize="small")
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 1), yticks=(0, 1))
    names = prior.free_names
    figure.supxlabel(
        f"{names[across]} (its quantile; early points dark, late ones bright)", fontsize="small"
    )
    figure.supylabel(names[down], fontsize="small")
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)

"""Style of the report's figures, and their conversion to inline SVG.

Colors are replaced by CSS variables, so that the same figure works on light pages, dark pages and
paper. Figures are created without pyplot. Matplotlib's global parameters are changed only within
`styled()` and restored afterwards.
"""

import contextlib
import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import matplotlib
import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

__all__ = [
    "COLORS",
    "Drawing",
    "color_scale",
    "duration_axis",
    "label",
    "log_axis",
    "log_ticks",
    "new_figure",
    "pretty_unit",
    "styled",
    "to_svg",
]

# Name of the CSS variable -> value on a light page. `to_svg` replaces these values in the SVG text, so no
# value may occur in a figure for another reason.
COLORS = {
    "ink": "#1d2431",
    "soft": "#667085",
    "line": "#d9dee7",
    "blue": "#2f6fdf",
    "amber": "#dc861f",
    "teal": "#12958b",
    "red": "#cf4257",
    "violet": "#7d5bd1",
    "pale": "#b9cdf3",
}
PIXELS_PER_INCH = 72

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "melissa-gen",
    "font.family": "sans-serif",
    "font.size": 12,
    "text.color": COLORS["ink"],
    "text.parse_math": False,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": COLORS["line"],
    "axes.labelcolor": COLORS["soft"],
    "axes.labelsize": 12,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": COLORS["line"],
    "grid.linewidth": 0.7,
    "xtick.color": COLORS["line"],
    "ytick.color": COLORS["line"],
    "xtick.labelcolor": COLORS["soft"],
    "ytick.labelcolor": COLORS["soft"],
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 11,
    "legend.handlelength": 1.3,
    "image.interpolation": "none",
    "savefig.dpi": 144,
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Sets the report's matplotlib style within the block, independent of the user's settings."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def new_figure(width: float, height: float) -> Figure:
    """Creates a figure with this width and height in CSS pixels."""
    return Figure(figsize=(width / PIXELS_PER_INCH, height / PIXELS_PER_INCH))


def color_scale(name: str, low: float = 0.0, high: float = 1.0) -> Colormap:
    """Returns the part of a matplotlib color map between `low` and `high`.

    Cutting off an end avoids colors that are invisible on white or on black.
    """
    colors = matplotlib.colormaps[name](np.linspace(low, high, 256))
    return LinearSegmentedColormap.from_list(f"{name}_part", colors)


def label(name: str, unit: str = "") -> str:
    """Formats an axis label: "temperature [K]"."""
    return f"{name} [{pretty_unit(unit)}]" if pretty_unit(unit) else name


def pretty_unit(unit: str) -> str:
    """Writes powers as superscripts: "m^2/s" and "m**2/s" become "m²/s". The unit "1" is not shown."""
    if unit == "1":
        return ""
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return re.sub(
        r"\s?(?:\^|\*\*)\s?(-?\d+)", lambda found: found[1].translate(raised), unit
    ).replace("*", "·")


def log_axis(axes: Axes, side: str) -> None:
    """Makes an axis logarithmic, with decimal numbers at its ticks: 0.01, 0.02, 0.05, 0.1.

    Args:
        axes: Axes that already hold the data, because the ticks depend on its range.
        side: "x" or "y".
    """
    axis = axes.xaxis if side == "x" else axes.yaxis
    axes.set_xscale("log") if side == "x" else axes.set_yscale("log")
    log_ticks(axis, *axis.get_view_interval())


def log_ticks(axis: Axis, low: float, high: float) -> None:
    """Sets decimal numbers at the ticks of a logarithmic axis, with more ticks for a smaller range."""
    decades = np.log10(high / low) if 0 < low < high else 1.0
    steps = (1.0,) if decades > 2.2 else (1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(10, subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def duration_axis(axes: Axes, seconds: npt.NDArray[np.float64]) -> None:
    """Labels a time axis in seconds, minutes or hours, depending on its length."""
    span = float(seconds[-1]) if len(seconds) else 0.0
    unit, size = ("h", 3600) if span > 2 * 3600 else ("min", 60) if span > 180 else ("s", 1)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 3, 5, 6, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / size:g}"))
    ticks = MaxNLocator(7, steps=[1, 2, 3, 5, 6, 10]).tick_values(0, span / size)
    axes.set_xticks([tick * size for tick in ticks if tick * size <= span])
    axes.set_xlim(0, max(span, 1e-9))
    axes.set_xlabel(f"running time [{unit}]")


def to_svg(figure: Figure) -> str:
    """Renders a figure as an SVG element for an HTML page.

    Ids are made unique within the page, the colors of `COLORS` are replaced by CSS variables with
    the color as fallback, and metadata with web addresses are removed.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    head, body = text.split(">", 1)
    box = re.search(r'viewBox="[^"]+"', head)
    body = re.sub(r"<!--.*?-->|\n\s*(?=<)", "", body, flags=re.DOTALL)
    # The style sheet of the page replaces that of the figure.
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    # Equal images would have the same id.
    body = re.sub(r' id="image[0-9a-f]+"', "", body)
    prefix = f"f{hashlib.sha256(body.encode()).hexdigest()[:8]}-"
    body = re.sub(r'\bid="', f'id="{prefix}', body)
    body = re.sub(r'href="#', f'href="#{prefix}', body)
    body = body.replace("url(#", f"url(#{prefix}")
    body = re.sub(r"font: ([^;\"]*?)px [^;\"]+", r"font: \1px var(--font)", body)
    for name, value in COLORS.items():
        body = body.replace(value, f"var(--{name}, {value})")
    width = int(figure.get_figwidth() * PIXELS_PER_INCH)
    name = escape(_accessible_name(figure))
    size = f'{box[0] if box else ""} style="max-width:{width}px"'
    return f'<svg {size} role="img" aria-label="{name}">{body}'


def _accessible_name(figure: Figure) -> str:
    """Returns what a screen reader says of a figure: the titles and labels of its panels, each once."""
    texts = [
        text
        for axes in figure.axes
        for text in (axes.get_title("left") or axes.get_title(), axes.get_ylabel())
    ]
    named = "; ".join(dict.fromkeys(text for text in texts if text))
    return f"Figure: {named}" if named else "Figure"


@dataclass(frozen=True)
class Drawing:
    """A figure of the page.

    Attributes:
        svg: The SVG element; empty if there is only a sentence.
        caption: The caption below the figure.
    """

    svg: Markup
    caption: str

    @classmethod
    def of(cls, figure: Figure, caption: str) -> Self:
        """Renders a figure."""
        return cls(Markup(to_svg(figure)), caption)

    @classmethod
    def missing(cls, sentence: str) -> Self:
        """Returns a sentence in place of a figure."""
        return cls(Markup(""), sentence)

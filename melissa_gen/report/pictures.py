"""Draws the figures of a page, or takes them from the last page."""

import logging
from collections.abc import Callable, Hashable
from functools import partial
from typing import TypeVar

from matplotlib.figure import Figure

from melissa_gen.report.drawing import Drawing
from melissa_gen.report.gallery import Gallery
from melissa_gen.run_dir.recorded_run import RecordedRun

__all__ = ["Pictures"]

_log = logging.getLogger(__name__)

Thing = TypeVar("Thing")
Draw = Callable[[RecordedRun], Figure | None]
Caption = str | Callable[[RecordedRun], str]


class Pictures:
    """Draws the figures of a run, or takes them from the gallery.

    A figure that can't be drawn is replaced by a sentence, so that the page still shows everything else.

    Args:
        run: The run.
        gallery: The drawings of the last page.
    """

    def __init__(self, run: RecordedRun, gallery: Gallery) -> None:
        self.run, self._gallery = run, gallery
        self._gallery.begin_page()

    def part(self, key: str, file: str, make: Callable[[], Thing]) -> Thing:
        """Returns a part of the page that shows a file of the run directory."""
        return self._gallery.drawn(key, self.run.version(file), make)

    def drawn(self, *wanted: tuple[Draw, Caption], version: Hashable) -> list[Drawing]:
        """Returns the figures for which the run has data.

        Args:
            wanted: What draws each figure, and its caption or what writes it.
            version: Anything that differs if the data of these figures differ.
        """
        found = [
            self._gallery.drawn(draw.__name__, version, partial(self._draw, draw, caption))
            for draw, caption in wanted
        ]
        return [one for one in found if one is not None]

    def _draw(self, draw: Draw, caption: Caption) -> Drawing | None:
        try:
            image = draw(self.run)
            if image is None:
                return None
            return Drawing.of(image, caption if isinstance(caption, str) else caption(self.run))
        except Exception as error:
            name = draw.__name__.removesuffix("_figure").replace("_", " ")
            sentence = f"The figure '{name}' can't be drawn: {type(error).__name__}: {error}"
            if self._gallery.is_new(sentence):
                _log.warning("%s", sentence, exc_info=error)
            return Drawing.missing(sentence)

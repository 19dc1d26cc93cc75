"""Keeps the drawings of a page that is written again and again."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["Gallery"]

Thing = TypeVar("Thing")


@dataclass
class _Kept:
    version: Hashable
    page: int
    thing: Any


class Gallery:
    """Keeps the drawings of the last page, because drawing costs much more than writing.

    A drawing is kept while its data are the same. Of the drawings whose data have changed, a page draws only `budget`
    again, the oldest first, so that every page costs little and each drawing has its turn.

    Args:
        budget: Largest number of changed drawings that one page draws again.
    """

    def __init__(self, budget: int = 2) -> None:
        self._budget, self._page = budget, 0
        self._kept: dict[str, _Kept] = {}
        self._stale: set[str] = set()
        self._due: set[str] = set()
        self._spare = 0
        self._said: set[str] = set()

    def is_new(self, sentence: str) -> bool:
        """Returns whether this is the first call with this sentence."""
        new = sentence not in self._said
        self._said.add(sentence)
        return new

    def begin_page(self) -> None:
        """Chooses the drawings that the next page may draw again."""
        self._page += 1
        oldest = sorted(self._stale, key=lambda key: self._kept[key].page)
        self._due, self._stale = set(oldest[: self._budget]), set()
        self._spare = self._budget - len(self._due)

    def drawn(self, key: str, version: Hashable, make: Callable[[], Thing]) -> Thing:
        """Returns a drawing, which may be older than its data.

        Args:
            key: Name of the drawing on the page.
            version: Anything that differs if the data differ.
            make: Draws it.
        """
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = _Kept(version, self._page, make())
        elif kept.version != version:
            if key in self._due or self._spare:
                self._spare -= key not in self._due
                kept = self._kept[key] = _Kept(version, self._page, make())
            else:
                self._stale.add(key)
        found: Thing = kept.thing
        return found

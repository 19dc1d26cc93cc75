"""Bounded samples of sequences of unknown length."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

__all__ = ["EvenSample", "Newest"]

Item = TypeVar("Item")


class EvenSample(Generic[Item]):
    """At most `limit` elements of a sequence, evenly spaced; all of them up to this number.

    Args:
        limit: Largest number of elements, at least 2.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._stride, self._number = limit, 1, 0
        self._items: list[Item] = []

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def add(self, item: Item) -> None:
        """Adds the next element of the sequence."""
        self._number += 1
        if self._number % self._stride == 0:
            self._items.append(item)
        if len(self._items) > self._limit:
            self._items, self._stride = self._items[1::2], 2 * self._stride

    def keep(self, wanted: Callable[[Item], bool]) -> None:
        """Removes the elements that are not wanted."""
        self._items = [item for item in self._items if wanted(item)]


class Newest(Generic[Item]):
    """The newest elements of a sequence.

    Args:
        limit: Largest number of elements.
    """

    def __init__(self, limit: int) -> None:
        self._items: deque[Item] = deque(maxlen=limit)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def add(self, item: Item) -> None:
        """Adds the next element of the sequence."""
        self._items.append(item)

"""The newest of a stream of names."""

__all__ = ["RecentNames"]


class RecentNames:
    """Remembers the newest names, so that its memory is bounded in a run of any length.

    Args:
        limit: Number of names that are remembered.
    """

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._names: dict[str, None] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def add(self, name: str) -> None:
        """Adds a name as the newest one."""
        self._names.pop(name, None)
        self._names[name] = None
        if len(self._names) > self._limit:
            del self._names[next(iter(self._names))]

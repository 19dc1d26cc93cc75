"""Server ranks that are threads of a test, with their collectives."""

import threading


class Threads:
    """Collectives of ranks that are threads.

    Args:
        ranks: Number of ranks.
    """

    def __init__(self, ranks):
        self._barrier, self._values = threading.Barrier(ranks, timeout=30), {}

    def of(self, rank):
        """Returns the collectives of a rank."""
        return _Rank(self._barrier, self._values, rank)


class _Rank:
    def __init__(self, barrier, values, rank):
        self._barrier, self._values, self._mine = barrier, values, rank

    def barrier(self):
        self._barrier.wait()

    def gather(self, value):
        self._values[self._mine] = value
        self._barrier.wait()
        found = [self._values[rank] for rank in sorted(self._values)]
        # No rank gives its next value before all have read these.
        self._barrier.wait()
        return found


def together(calls):
    """Calls a function for each rank on a thread of its own; returns the results in order."""
    results = [None] * len(calls)

    def run(rank):
        results[rank] = calls[rank]()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(calls))]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return results

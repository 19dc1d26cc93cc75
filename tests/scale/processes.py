"""Virtual time: an event queue, and processes that are busy while they handle messages."""

import heapq
import itertools
import time

SOCKET_SECONDS = 15e-6
"""Assumed CPU time of ZeroMQ and the kernel for one message at one end (measured: 5 to 20 µs)."""
COPY_BYTES = 2.5e9
"""Assumed bytes a second that a process receives from sockets."""
LATENCY = 50e-6
"""Assumed time of a message on its way."""


class EventQueue:
    """Calls functions in the order of their virtual times.

    Attributes:
        now: Virtual seconds.
    """

    def __init__(self):
        self.now = 0.0
        self._heap, self._order = [], itertools.count()

    def at(self, when, call, *arguments):
        """Calls a function at a time, or now if that has passed."""
        heapq.heappush(self._heap, (max(when, self.now), next(self._order), call, arguments))

    def run(self, over, limit):
        """Calls the functions until `over()` is true, nothing is left, or a time is reached."""
        while self._heap and not over() and self.now <= limit:
            self.now, _, call, arguments = heapq.heappop(self._heap)
            call(*arguments)


class Process:
    """A process that handles one message after the other, and takes for each the time that it really takes here.

    Args:
        queue: The virtual time.
        clock: CPU seconds of this thread; a test gives one that does not depend on the machine.

    Attributes:
        busy: Seconds that it was busy.
        free_at: When everything that has arrived is handled.
        messages: Messages that it has sent and received.
        bytes: Bytes of these messages.
        wait: Longest time that a message has waited.
    """

    def __init__(self, queue, clock=time.thread_time):
        self._queue, self._clock = queue, clock
        self.busy = self.free_at = self.wait = 0.0
        self.messages = self.bytes = 0

    def handle(self, call, *arguments, messages=0, size=0):
        """Calls a function that handles messages of a total size, and returns its result.

        The time of the call, of the messages in ZeroMQ and of the copy is added to what the process has to do.
        """
        begin = max(self._queue.now, self.free_at)
        self.wait = max(self.wait, begin - self._queue.now)
        before = self._clock()
        found = call(*arguments)
        self._take(self._clock() - before, begin)
        self.count(messages, size)
        return found

    def count(self, messages, size):
        """Adds messages to what the process sends or receives."""
        self.messages += messages
        self.bytes += size
        self._take(messages * SOCKET_SECONDS + size / COPY_BYTES, self.free_at)

    def _take(self, seconds, begin):
        self.busy += seconds
        self.free_at = begin + seconds

"""A limit on the threads of one purpose, separate for each run of trio."""

from __future__ import annotations

import trio


class ThreadLimit:
    """Limits how many threads of one purpose run at a time, so that those that block hold up no others.

    Each run of trio has its own limiter. A thread that outlives its run never gives its token back, and a limiter must not be used
    by two runs in two threads.

    Args:
        name: What the threads are for.
        threads: How many may run at a time.
    """

    def __init__(self, name: str, threads: int) -> None:
        self._threads = threads
        self._of_this_run: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar(name)

    def get(self) -> trio.CapacityLimiter:
        """The limiter of the current run, for `trio.to_thread.run_sync`."""
        try:
            return self._of_this_run.get()
        except LookupError:
            limiter = trio.CapacityLimiter(self._threads)
            self._of_this_run.set(limiter)
            return limiter

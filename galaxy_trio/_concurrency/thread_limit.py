"""A limit on the threads for one purpose, separate for each run of trio."""

from __future__ import annotations

import trio


class ThreadLimit:
    """Limits the concurrent threads for one purpose, so that blocked ones delay no others.

    Each run of trio has its own limiter: a thread that outlives its run never returns its token, and two runs in two threads must not
    share a limiter.

    Args:
        name: The purpose of the threads.
        threads: The limit of concurrent threads.
    """

    def __init__(self, name: str, threads: int) -> None:
        self._threads = threads
        self._of_this_run: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar(name)

    def get(self) -> trio.CapacityLimiter:
        """Return the current run's limiter, for `trio.to_thread.run_sync`."""
        try:
            return self._of_this_run.get()
        except LookupError:
            limiter = trio.CapacityLimiter(self._threads)
            self._of_this_run.set(limiter)
            return limiter

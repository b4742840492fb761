"""The work of the demonstration's tasks: it takes time and does nothing else."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from galaxy_trio.errors import TaskFailed

if TYPE_CHECKING:
    from galaxy_trio.server import ServerTask


def seconds_of_work(number: int) -> float:
    """Return how long a task takes, from 0.2 to 1.5 s: looks random, and is the same in every run."""
    golden_ratio = (math.sqrt(5) - 1) / 2
    return round(0.2 + 1.3 * (number * golden_ratio % 1), 2)


class Work:
    """The function of the server's sessions: takes time, and counts for the report.

    Args:
        pace: How long a second of work lasts, in seconds.

    Attributes:
        all_begun: Set when as many sessions run as `expect` was given.
        cancelled: Set when a session was cancelled.
        most_at_once: The largest number of sessions that ran concurrently.
    """

    def __init__(self, pace: float) -> None:
        self._pace = pace
        self._expected = 0
        self._running = 0
        self._released = trio.Event()
        self._released.set()
        self._failing: set[str] = set()
        self.all_begun: trio.Event = trio.Event()
        self.cancelled: trio.Event = trio.Event()
        self.most_at_once: int = 0

    def expect(self, sessions: int) -> None:
        """Let sessions start their work only when this many of them run."""
        self._expected = sessions
        self.all_begun = trio.Event()

    def hold(self) -> None:
        """Let no session end before `release`."""
        self._released = trio.Event()

    def release(self) -> None:
        """Let sessions end when their work is done."""
        self._released.set()

    def fail_once(self, request: str) -> None:
        """Let the next session with this request fail when its work is done."""
        self._failing.add(request)

    async def session(self, task: ServerTask) -> object:
        """Work for the seconds that the request names.

        Raises:
            TaskFailed: `fail_once` said so.
        """
        self._running += 1
        self.most_at_once = max(self.most_at_once, self._running)
        if self._running >= self._expected:
            self.all_begun.set()
        try:
            await self.all_begun.wait()
            await trio.sleep(float(task.request) * self._pace)
            await self._released.wait()
            if task.request in self._failing:
                self._failing.remove(task.request)
                raise TaskFailed("it fails on purpose")
        except trio.Cancelled:
            self.cancelled.set()
            raise
        finally:
            self._running -= 1
        return f"worked for {task.request} s"

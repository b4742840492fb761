"""The work of the demonstration's tasks: it takes time, and nothing else."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from galaxy_trio.server import ServerTask


def seconds_of_work(number: int) -> float:
    """How long a task takes, from 0.2 to 1.5 s: random to look at, and the same every time."""
    golden_ratio = (math.sqrt(5) - 1) / 2
    return round(0.2 + 1.3 * (number * golden_ratio % 1), 2)


class Work:
    """What the server's sessions do: take their time. It takes notes for the report.

    Args:
        pace: What a second lasts, in seconds.
    """

    def __init__(self, pace: float) -> None:
        self._pace = pace
        self._expected = 0
        self._running = 0
        self.all_begun: trio.Event = trio.Event()
        self.cancelled: trio.Event = trio.Event()
        self.most_at_once: int = 0

    def expect(self, sessions: int) -> None:
        """From now on, sessions wait until so many of them run, which `all_begun` tells of."""
        self._expected = sessions
        self.all_begun = trio.Event()

    async def session(self, task: ServerTask) -> object:
        """Work for as many seconds as the request says."""
        self._running += 1
        self.most_at_once = max(self.most_at_once, self._running)
        if self._running >= self._expected:
            self.all_begun.set()
        try:
            await self.all_begun.wait()
            await trio.sleep(float(task.request) * self._pace)
        except trio.Cancelled:
            self.cancelled.set()
            raise
        finally:
            self._running -= 1
        return f"worked for {task.request} s"

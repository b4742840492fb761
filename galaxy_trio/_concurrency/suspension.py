"""Notices that this process was suspended, or that the whole machine was asleep.

A suspended process (SIGSTOP, a debugger, a starved machine) continues after its deadlines, with unread bytes in its sockets. trio's
clock ran during that time: `with_grace` recognises it by a task that runs late. While a machine sleeps, trio's clock stands still on
Linux and macOS: no deadline passes, but peers may have dropped their connections. `wait_machine_woken` recognises it by another clock.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

LATE: Final = 1.0
"""Seconds after its deadline from which a task that runs only then shows that the process was suspended."""
GRACE: Final = 5.0
"""Seconds that a peer gets to be heard after this process was suspended."""
_JUMP: Final = 1.0
"""Seconds by which the clocks must differ."""
_INTERVAL: Final = 1.0
"""Seconds between two looks at the clocks."""


def _system_time_asleep() -> float:
    # CLOCK_BOOTTIME runs while the machine sleeps. Other systems have only the time of day for that, which may be set.
    running = time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.time()
    return running - time.perf_counter()


time_asleep: Callable[[], float] = _system_time_asleep
"""Seconds that the machine has been asleep, plus a constant. A test may replace it."""


def with_grace(deadline: float) -> float:
    """Return the time at which a deadline that has passed counts: now, unless this process was suspended.

    Call this in the step in which a task wakes up because of the deadline.

    Returns:
        The deadline; `GRACE` seconds from now if the task runs more than `LATE` seconds after it.
    """
    now = trio.current_time()
    return now + GRACE if now - deadline > LATE else deadline


class _Watch:
    """Tasks that wait for the machine to wake up. One of them looks at the clocks, and passes that on when it leaves."""

    def __init__(self) -> None:
        self._is_looking = False
        self._waiters = trio.lowlevel.ParkingLot()

    async def wait_more_asleep(self, than: float) -> float:
        while time_asleep() - than <= _JUMP:
            if self._is_looking:
                await self._waiters.park()
            else:
                await self._look()
        self._waiters.unpark_all()
        return time_asleep()

    async def _look(self) -> None:
        """Let one interval pass, after which this task looks again. If it is cancelled, another one takes over."""
        self._is_looking = True
        try:
            await trio.sleep(_INTERVAL)
        except trio.Cancelled:
            self._waiters.unpark()
            raise
        finally:
            self._is_looking = False


_watch_of_this_run: Final[trio.lowlevel.RunVar[_Watch]] = trio.lowlevel.RunVar("machine sleep")


async def wait_machine_woken(since: float) -> float:
    """Wait until the machine has woken from sleep. Any number of tasks may wait; together they cost one timer. Cancelling is safe.

    Args:
        since: The value of `time_asleep` from which on sleep counts.

    Returns:
        The value of `time_asleep` for the next call.
    """
    try:
        watch = _watch_of_this_run.get()
    except LookupError:
        watch = _Watch()
        _watch_of_this_run.set(watch)
    return await watch.wait_more_asleep(since)

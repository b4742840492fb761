"""For how long a message at the size limit holds the event loop: the longest step of any task while it is sent or received."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from statistics import median
from typing import TYPE_CHECKING, Final, cast

import trio

from galaxy_trio import ConnectionOptions, InvalidMessage, open_connection

from .processes import measure
from .report import print_table
from .wire import DEVICE_ID, LIMIT, MARGIN, Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .effort import Effort
    from .processes import Peer
    from .report import Target

_CASES: Final[Mapping[str, str]] = {
    "receive one string of 100 MiB": Task.LIMIT_STRING,
    "receive a 100 MiB list of small objects": Task.LIMIT_LIST,
    "refuse a string of 100 MiB for an error at its end": Task.LIMIT_BROKEN_STRING,
    "refuse a 100 MiB list of small objects for an error at its end": Task.LIMIT_BROKEN_LIST,
    "send a request of 100 MiB (encode, frame, mask)": "",
}
"""What is measured, and the request that brings it about; an empty one stands for a request of that size."""


class LongestStep(trio.abc.Instrument):
    """The longest time for which a task has kept all others waiting."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._start = math.inf

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        self._start = time.perf_counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        self.seconds = max(self.seconds, time.perf_counter() - self._start)


async def _hold(url: str, case: str) -> float:
    request = _CASES[case] or "x" * (LIMIT - MARGIN)
    async with open_connection(url, DEVICE_ID, options=ConnectionOptions(max_message_size=LIMIT)) as connection:
        longest = LongestStep()
        trio.lowlevel.add_instrument(longest)
        # The step in which it was added is not seen.
        await trio.lowlevel.checkpoint()
        with suppress(InvalidMessage):
            await connection.run_task(request)
        return longest.seconds


def measure_hold(url: str, case: str) -> float:
    return trio.run(_hold, url, case)


def bench_event_loop(peer: Peer, effort: Effort) -> list[Target]:
    """The time for which a message at the limit holds the event loop; no target is set for it."""
    print("\n## The longest step of the event loop while a message at the limit of 100 MiB passes")
    rows: list[tuple[str, str]] = []
    for case in _CASES:
        holds = [cast("float", measure("hold", peer.url, case)) for _ in range(effort.holds)]
        rows.append((case, f"{median(holds):.2f}"))
    print_table(("what", "s"), rows)
    return []

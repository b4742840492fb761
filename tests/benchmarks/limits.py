"""What is large, many or long, in how much time, in how much memory. Each measurement is a process of its own."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import psutil
import trio
import trio.testing

from galaxy_trio import ConnectionLost, ConnectionOptions, open_connection
from galaxy_trio._connection.pending_replies import MAX_PENDING
from galaxy_trio.agent import open_device_connection
from galaxy_trio.messages import DeviceInfo, Platform
from galaxy_trio.testing import open_memory_server

from .processes import running_peer
from .report import Target, at_most, print_table
from .wire import DEVICE_ID, LIMIT, MARGIN, UNKNOWN_REPLIES, Task

if TYPE_CHECKING:
    from galaxy_trio import Connection

    from .effort import Effort

_TIMEOUT: Final = 300.0
_HOUR: Final = 3600.0
_BURST: Final = 100
"""Requests that are made between two steps of the peer, unless all are made in one step."""
_BATCHES: Final = {"one by one": _BURST, "in one step": MAX_PENDING}


class Figure(NamedTuple):
    """What was measured, in which unit, and with how many digits after the point."""

    what: str
    unit: str
    digits: int
    value: float


def _resident() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss


def _peak() -> int:
    # In KiB on Linux.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


async def measure_result(url: str, _pid: int) -> list[Figure]:
    """A result of 100 MiB, twice: the first time pays for the memory's pages."""
    seconds = 0.0
    async with open_connection(url, DEVICE_ID, options=ConnectionOptions(max_message_size=LIMIT)) as connection:
        await connection.device_info()
        before = _resident()
        for _ in range(2):
            start = time.perf_counter()
            await connection.run_task(Task.LIMIT_STRING)
            seconds = time.perf_counter() - start
        # Trio itself holds what it has just given to this task.
        await trio.sleep(0.1)
        left = _resident() - before
    return [
        Figure("a result of 100 MiB", "s", 2, seconds),
        Figure("", "MB/s", 0, (LIMIT - MARGIN) / 1e6 / seconds),
        Figure("peak of memory while it comes", "MiB", 0, (_peak() - before) / 2**20),
        Figure("of that held afterwards", "MiB", 0, left / 2**20),
    ]


async def _wait_until_pending(connection: Connection, many: int) -> None:
    while connection.statistics().pending < many:
        await trio.lowlevel.checkpoint()


async def _measure_pending(url: str, pid: int, *, how: str, traced: bool) -> list[Figure]:
    endings: list[float] = []

    async with open_connection(url, DEVICE_ID) as connection, trio.open_nursery() as nursery:
        # What the first request leaves behind is not theirs.
        await connection.device_info()
        await connection.run_task(Task.SILENCE)

        async def ask() -> None:
            try:
                await connection.device_info(timeout=1_000)
            except ConnectionLost:
                endings.append(time.perf_counter())

        if traced:
            tracemalloc.start()
        before = _resident()
        for number in range(MAX_PENDING):
            nursery.start_soon(ask)
            if (number + 1) % _BATCHES[how] == 0:
                await _wait_until_pending(connection, number + 1)
        # The last have been written.
        await trio.sleep(0.5)
        gc.collect()
        if traced:
            each = tracemalloc.get_traced_memory()[0] / MAX_PENDING / 1024
            nursery.cancel_scope.cancel()
            return [Figure("of that by tracemalloc", "KiB", 2, each)]
        each = (_resident() - before) / MAX_PENDING / 1024
        os.kill(pid, signal.SIGKILL)
        killed = time.perf_counter()
    if len(endings) != MAX_PENDING:
        raise RuntimeError(f"{len(endings)} of {MAX_PENDING} requests were notified of the loss")
    memory = Figure(f"a pending request, made {how}, with its caller's task", "KiB", 2, each)
    return [memory, Figure("10,000 pending requests notified of the loss after", "s", 2, max(endings) - killed)]


async def measure_pending(url: str, pid: int) -> list[Figure]:
    """10,000 pending requests, made in small bursts."""
    return await _measure_pending(url, pid, how="one by one", traced=False)


async def measure_pending_together(url: str, pid: int) -> list[Figure]:
    """10,000 pending requests, made in one step: most have to wait for room in the send buffer first."""
    return await _measure_pending(url, pid, how="in one step", traced=False)


async def measure_pending_traced(url: str, pid: int) -> list[Figure]:
    """What Python has allocated for them, without what the heap loses between."""
    return await _measure_pending(url, pid, how="one by one", traced=True)


async def measure_unknown(url: str, _pid: int) -> list[Figure]:
    """Replies to requests that were never made."""
    async with open_connection(url, DEVICE_ID) as connection:
        await connection.run_task(Task.UNKNOWN)
        blocks, resident = _blocks(), _resident()
        start = time.perf_counter()
        await connection.run_task(Task.UNKNOWN)
        seconds = time.perf_counter() - start
        blocks, resident = _blocks() - blocks, _resident() - resident
        if connection.statistics().unknown_replies != 2 * UNKNOWN_REPLIES:
            raise RuntimeError("not all of them came")
    return [
        Figure("100,000 unknown replies", "s", 2, seconds),
        Figure("more objects after them (sys.getallocatedblocks)", "", 0, blocks),
        Figure("more resident memory", "KiB", 0, resident / 1024),
    ]


async def measure_day() -> list[Figure]:
    """Heartbeats of a device and a constellation, and their server's pings, on a clock that jumps."""
    start = time.perf_counter()
    info = DeviceInfo(DEVICE_ID, Platform.LINUX)
    async with (
        open_memory_server() as server,
        open_device_connection(server.url, DEVICE_ID, system_info=info, stream=server.connect()) as device,
        open_connection(server.url, DEVICE_ID, stream=server.connect()) as connection,
    ):
        await trio.sleep(_HOUR)
        blocks, resident = _blocks(), _resident()
        await trio.sleep_until(25 * _HOUR)
        blocks, resident = _blocks() - blocks, _resident() - resident
        if device.closed or connection.closed:
            raise RuntimeError("a connection was lost")
    return [
        Figure("24 h of heartbeats: more objects (sys.getallocatedblocks)", "", 0, blocks),
        Figure("more resident memory", "KiB", 0, resident / 1024),
        Figure("real time that it took", "s", 1, time.perf_counter() - start),
    ]


_ON_PEER: Final = {
    "result": measure_result,
    "pending": measure_pending,
    "pending together": measure_pending_together,
    "pending traced": measure_pending_traced,
    "unknown": measure_unknown,
}
_CASES: Final = (*_ON_PEER, "day")


def _measure(case: str, rounds: int) -> list[Figure]:
    """The medians of some rounds. Each has a peer of its own, which may be killed."""
    taken: list[list[Figure]] = []
    for _ in range(rounds):
        with running_peer() as peer:
            what = json.dumps([case, *peer])
            command = [sys.executable, "-m", __name__, what]
            completed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=_TIMEOUT)
        taken.append([Figure(*figure) for figure in cast("list[list[object]]", json.loads(completed.stdout))])  # type: ignore[arg-type]
    return [
        figures[0]._replace(value=median(figure.value for figure in figures)) for figures in zip(*taken, strict=True)
    ]


def bench_limits(effort: Effort) -> list[Target]:
    """What is large, many or long."""
    print("\n## Limits")
    measured = {case: _measure(case, effort.holds) for case in _CASES}
    print_table(
        ("what", "unit", "measured"),
        (
            (figure.what, figure.unit, f"{figure.value:,.{figure.digits}f}")
            for figures in measured.values()
            for figure in figures
        ),
    )
    return [
        at_most(f"memory of a pending request, made {how}, KiB", 6.0, measured[case][0].value)
        for case, how in (("pending", "one by one"), ("pending together", "in one step"))
    ]


def main() -> None:
    """One measurement; what it is comes in the argument."""
    case, url, pid = cast("tuple[str, str, int]", json.loads(sys.argv[1]))
    if case == "day":
        clock = trio.testing.MockClock(autojump_threshold=0)
        figures = trio.run(measure_day, clock=clock)
    else:
        figures = trio.run(partial(_ON_PEER[case], url, pid))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

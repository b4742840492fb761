"""The demonstration's constellation: three devices, one of which is killed and reconnects while tasks run."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio._cli.demo.report import Stopwatch, show_time
from galaxy_trio._concurrency.background import open_background
from galaxy_trio.agent import open_device_connection
from galaxy_trio.constellation.config import DeviceConfig
from galaxy_trio.constellation.constellation import open_constellation
from galaxy_trio.events import CONNECTED, DeviceStatus
from galaxy_trio.messages import DeviceInfo, TaskStatus

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from galaxy_trio._cli.demo.report import Report
    from galaxy_trio._cli.demo.work import Work
    from galaxy_trio.constellation.constellation import Constellation
    from galaxy_trio.messages import TaskResult
    from galaxy_trio.server import Server

SYSTEMS: Final = ("linux", "windows", "darwin")
KILLED: Final = "windows"
_WORK: Final = 0.3
"""Seconds of work of each task."""
_RECONNECT_DELAY: Final = 0.1


def name_of(system: str) -> str:
    """The name of the device that runs this system."""
    return f"demo-{system}"


class Fleet:
    """Three devices, and a constellation for them.

    Args:
        report: Prints the figures, and checks the claims.
        server: The server of the devices.
        token: The server's token.
        work: The work of its sessions.
        pace: How long a second of work lasts, in seconds.
    """

    def __init__(self, report: Report, server: Server, token: str, work: Work, pace: float) -> None:
        self._report = report
        self._server = server
        self._token = token
        self._work = work
        self._pace = pace
        self._scopes: dict[str, trio.CancelScope] = {}
        self._results: dict[str, TaskResult] = {}

    @asynccontextmanager
    async def show(self) -> AsyncGenerator[Constellation]:
        """Run the step. Yields the constellation, for the next one."""
        configs = [DeviceConfig(name_of(system), self._server.url, token=self._token) for system in SYSTEMS]
        async with open_background() as nursery:
            for system in SYSTEMS:
                await nursery.start(self._run_device, system)
            stopwatch = Stopwatch()
            async with open_constellation(configs, reconnect_delay=_RECONNECT_DELAY * self._pace) as constellation:
                await constellation.wait_connected()
                self._report.show(("connected", f"{len(SYSTEMS)} devices in {show_time(stopwatch.lap())}"))
                await self._show_reconnect(constellation, nursery)
                yield constellation

    async def _run_device(self, system: str, *, task_status: trio.TaskStatus[None]) -> None:
        info = DeviceInfo(name_of(system), system)
        with trio.CancelScope() as self._scopes[system]:
            async with open_device_connection(
                self._server.url, info.device_id, system_info=info, token=self._token
            ) as device:
                task_status.started()
                await device.wait_closed()

    async def _run(self, constellation: Constellation, name: str, system: str) -> None:
        self._results[name] = await constellation.run_task(str(_WORK), os=system)

    async def _show_reconnect(self, constellation: Constellation, nursery: trio.Nursery) -> None:
        """Kill a device while one task for each system runs and another one is queued."""
        killed = constellation.devices[name_of(KILLED)]
        self._work.expect(len(SYSTEMS))
        # However long the steps take, the tasks that run when the device is killed are the first ones.
        self._work.hold()
        stopwatch = Stopwatch()
        async with trio.open_nursery() as tasks:
            for system in SYSTEMS:
                tasks.start_soon(self._run, constellation, f"first {system}", system)
            await self._work.all_begun.wait()
            for system in SYSTEMS:
                tasks.start_soon(self._run, constellation, f"second {system}", system)
            await _wait_queued(constellation, len(SYSTEMS))
            before = constellation.statistics()
            self._work.expect(0)
            stopwatch.lap()
            self._scopes[KILLED].cancel()
            gone = await killed.wait_status(*set(DeviceStatus) - CONNECTED)
            noticed = stopwatch.lap()
            self._work.release()
            await nursery.start(partial(self._run_device, KILLED))
            await killed.wait_connected()
            back = stopwatch.lap()
        after = constellation.statistics()
        lost = self._results[f"first {KILLED}"]
        others = [result for name, result in self._results.items() if name != f"first {KILLED}"]
        completed = sum(result.status is TaskStatus.COMPLETED for result in others)
        matching = sum(result.device_id == name_of(name.split()[1]) for name, result in self._results.items())
        self._report.show(
            ("before", f"{before.running} tasks run, one on each device; {before.queued} are queued"),
            ("killed", f"{killed.device_id}; {gone.value} after {show_time(noticed)}"),
            ("its task", f"{lost.status.value}: {lost.error}"),
            ("back", f"connected again {show_time(back)} later"),
            ("the others", f"{completed} of {len(others)} completed, including the one queued for that device"),
            ("total", f"{matching} of {len(self._results)} ran on the device of their system"),
            ("after", f"{after.running} tasks run, {after.queued} are queued"),
        )
        self._report.check("the task on the device that was killed failed", holds=lost.status is TaskStatus.FAILED)
        self._report.check("all other tasks completed", holds=completed == len(others))
        self._report.check("each task ran on the device of its system", holds=matching == len(self._results))
        self._report.check("no task runs or is queued afterwards", holds=after.running == after.queued == 0)


async def _wait_queued(constellation: Constellation, count: int) -> None:
    async with constellation.subscribe() as events:
        while constellation.statistics().queued < count:
            await anext(events)

"""A constellation in memory whose tasks end when, and as, a test says."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from galaxy_trio import Constellation, TaskFailed, open_constellation
from galaxy_trio.messages import JSON
from galaxy_trio.testing import MemoryFleet, open_memory_fleet

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from galaxy_trio.server import ServerTask


@attrs.define(eq=False)
class Tasks:
    """The tasks on the server, by their requests."""

    constellation: Constellation
    fleet: MemoryFleet
    started: list[str]
    stopped: list[str]
    texts: dict[str, str]
    _running: dict[str, trio.MemorySendChannel[JSON | TaskFailed]]
    _changed: trio.lowlevel.ParkingLot

    @property
    def running(self) -> set[str]:
        """The requests of the tasks that run."""
        return set(self._running)

    async def wait_running(self, *requests: str) -> None:
        """Wait until exactly these tasks run."""
        with trio.fail_after(600):
            while self.running != set(requests):
                await self._changed.park()

    async def wait_started(self, count: int) -> None:
        """Wait until this many tasks have begun so far."""
        with trio.fail_after(600):
            while len(self.started) < count:
                await self._changed.park()

    async def complete(self, *requests: str, result: JSON = None) -> None:
        """End tasks, each after it has begun."""
        for request in requests:
            with trio.fail_after(600):
                while request not in self._running:
                    await self._changed.park()
            self.complete_nowait(request, result=result)
        await trio.testing.wait_all_tasks_blocked()

    def complete_nowait(self, request: str, *, result: JSON = None) -> None:
        """End a task that has begun, in this step."""
        self._running.pop(request).send_nowait(result)

    async def fail(self, *requests: str, why: str = "it broke", result: JSON = None) -> None:
        """Let tasks fail, each after it has begun."""
        for request in requests:
            with trio.fail_after(600):
                while request not in self._running:
                    await self._changed.park()
            self._running.pop(request).send_nowait(TaskFailed(why, result=result))
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def open_tasks(*device_ids: str, max_queued: int = 1000) -> AsyncGenerator[Tasks]:
    """Run a constellation of devices in memory. A task's name is the first line of its text."""
    started, stopped, texts = list[str](), list[str](), dict[str, str]()
    running = dict[str, trio.MemorySendChannel["JSON | TaskFailed"]]()
    changed = trio.lowlevel.ParkingLot()

    async def session(task: ServerTask) -> object:
        name = task.request.split("\n", 1)[0].removeprefix("Task Description: ")
        texts[name] = task.request
        send, receive = trio.open_memory_channel["JSON | TaskFailed"](1)
        running[name] = send
        started.append(name)
        changed.unpark_all()
        try:
            end = await receive.receive()
        except trio.Cancelled:
            stopped.append(name)
            running.pop(name, None)
            raise
        finally:
            changed.unpark_all()
        if isinstance(end, TaskFailed):
            raise end
        return end

    async with (
        open_memory_fleet(*(device_ids or ("d1", "d2", "d3", "d4")), session=session) as fleet,
        open_constellation(fleet.configs, connect=fleet.connect, max_queued=max_queued) as constellation,
    ):
        await constellation.wait_connected()
        yield Tasks(constellation, fleet, started, stopped, texts, running, changed)

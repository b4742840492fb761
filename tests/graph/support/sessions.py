"""Tasks on a server in memory that end when, and as, a test says."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from galaxy_trio import Constellation, TaskFailed, open_constellation
from galaxy_trio.testing import MemoryFleet, open_memory_fleet

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from galaxy_trio.messages import JSON
    from galaxy_trio.server import ServerTask


class Sessions:
    """The session function of a server. A task's name is the first line of its text.

    Attributes:
        seconds: The longest wait for anything.
        started: The names of the tasks that have begun, in order.
        stopped: The names of those that were cancelled.
        texts: The text of the last task with each name.
        devices: The device of the last task with each name.
    """

    def __init__(self, seconds: float = 600) -> None:
        self.seconds = seconds
        self.started: list[str] = []
        self.stopped: list[str] = []
        self.texts: dict[str, str] = {}
        self.devices: dict[str, str] = {}
        self._running: dict[str, trio.MemorySendChannel[JSON | TaskFailed]] = {}
        self._changed = trio.lowlevel.ParkingLot()

    async def __call__(self, task: ServerTask) -> object:
        name = task.request.split("\n", 1)[0].removeprefix("Task Description: ")
        self.texts[name], self.devices[name] = task.request, task.device_id
        send, receive = trio.open_memory_channel["JSON | TaskFailed"](1)
        self._running[name] = send
        self.started.append(name)
        self._changed.unpark_all()
        try:
            end = await receive.receive()
        except trio.Cancelled:
            self.stopped.append(name)
            self._running.pop(name, None)
            raise
        finally:
            self._changed.unpark_all()
        if isinstance(end, TaskFailed):
            raise end
        return end

    @property
    def running(self) -> set[str]:
        """The names of the tasks that run."""
        return set(self._running)

    async def wait_running(self, *names: str) -> None:
        """Wait until exactly these tasks run."""
        with trio.fail_after(self.seconds):
            while self.running != set(names):
                await self._changed.park()

    async def wait_started(self, count: int) -> None:
        """Wait until this many tasks have begun so far."""
        with trio.fail_after(self.seconds):
            while len(self.started) < count:
                await self._changed.park()

    async def complete(self, *names: str, result: JSON = None) -> None:
        """End tasks, each after it has begun."""
        for name in names:
            await self.wait_begun(name)
            self.complete_nowait(name, result=result)
        await trio.testing.wait_all_tasks_blocked()

    def complete_nowait(self, name: str, *, result: JSON = None) -> None:
        """End a task that has begun, in this step."""
        self._running.pop(name).send_nowait(result)

    async def fail(self, *names: str, why: str = "it broke", result: JSON = None) -> None:
        """Let tasks fail, each after it has begun."""
        for name in names:
            await self.wait_begun(name)
            self._running.pop(name).send_nowait(TaskFailed(why, result=result))
        await trio.testing.wait_all_tasks_blocked()

    async def wait_begun(self, name: str) -> None:
        """Wait until a task runs."""
        with trio.fail_after(self.seconds):
            while name not in self._running:
                await self._changed.park()


class Tasks(Sessions):
    """The tasks of a constellation in memory. Made by `open_tasks`."""

    constellation: Constellation
    fleet: MemoryFleet


@asynccontextmanager
async def open_tasks(*device_ids: str, max_queued: int = 1000) -> AsyncGenerator[Tasks]:
    """Run a constellation of devices in memory."""
    tasks = Tasks()
    async with (
        open_memory_fleet(*(device_ids or ("d1", "d2", "d3", "d4")), session=tasks) as tasks.fleet,
        open_constellation(tasks.fleet.configs, connect=tasks.fleet.connect, max_queued=max_queued) as constellation,
    ):
        tasks.constellation = constellation
        await constellation.wait_connected()
        yield tasks

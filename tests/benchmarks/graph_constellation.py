"""A constellation without devices for the benchmarks of task graphs: what remains is the time that the graph itself takes."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, cast

import trio

from galaxy_trio import Constellation, open_constellation
from galaxy_trio.messages import TaskResult, TaskStatus
from galaxy_trio.testing import open_memory_fleet

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from galaxy_trio.server import ServerTask

WAIT: Final = "wait"
"""The request of a task that does not end."""


class InstantConstellation:
    """Ends each task in the step in which it begins, unless its request is `WAIT`.

    Attributes:
        devices: No devices: nodes that name one cannot run.
        started: When the latest task began, on the clock of `time.perf_counter` and in seconds of CPU time.
    """

    def __init__(self) -> None:
        self.devices: dict[str, object] = {}
        self.started = (0.0, 0.0)

    async def run_task(
        self, request: str, *, task_id: str, before_sending: Callable[[str], Awaitable[None]], **_: object
    ) -> TaskResult:
        """Begin a task, and end it."""
        await before_sending("device")
        self.started = time.perf_counter(), time.thread_time()
        if request == WAIT:
            await trio.sleep_forever()
        return TaskResult(task_id, "device", TaskStatus.COMPLETED)

    def as_constellation(self) -> Constellation:
        """Return it for `open_graph`, which uses nothing else of a constellation."""
        return cast("Constellation", self)


@asynccontextmanager
async def open_devices(count: int, seconds: float = 0.0) -> AsyncGenerator[Constellation]:
    """Open a constellation of devices over connections in memory. Their server ends each task after some seconds."""

    async def work(_: ServerTask) -> None:
        if seconds:
            await trio.sleep(seconds)

    device_ids = [f"device-{number}" for number in range(count)]
    async with (
        open_memory_fleet(*device_ids, session=work) as fleet,
        open_constellation(fleet.configs, connect=fleet.connect) as constellation,
    ):
        await constellation.wait_connected()
        yield constellation

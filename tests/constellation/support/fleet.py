"""A server in memory with devices on it, and the events that a constellation publishes."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from galaxy_trio import DeviceInfo
from galaxy_trio.agent import open_device_connection
from galaxy_trio.constellation.config import DeviceConfig
from galaxy_trio.server import ServerLimits
from galaxy_trio.testing import MemoryServer, open_memory_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from galaxy_trio.constellation.constellation import Constellation
    from galaxy_trio.events import Event, EventsLost
    from galaxy_trio.server import ServerTask

SECONDS = 120.0
"""Seconds for anything to happen, mostly on a mock clock."""
URL = "ws://server.test/ws"


class Work:
    """The session handler of the server. A request says what to do, and the lists record the outcomes.

    ``echo X`` returns X; ``fail`` fails; ``wait`` waits until `finish` is set, and records its cancellation; ``hold X`` waits until
    `release` is called with X.
    """

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.cancelled: list[str] = []
        self.finish = trio.Event()
        self.running: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self._gates: dict[str, trio.Event] = {}

    def release(self, *names: str) -> None:
        """End ``hold`` tasks, also those that begin later."""
        for name in names:
            self._gates.setdefault(name, trio.Event()).set()

    async def __call__(self, task: ServerTask) -> object:
        self.begun.append(task.request)
        self.running[task.device_id] = self.running.get(task.device_id, 0) + 1
        self.most[task.device_id] = max(self.most.get(task.device_id, 0), self.running[task.device_id])
        try:
            await trio.lowlevel.checkpoint()
            word, _, rest = task.request.partition(" ")
            if word == "fail":
                raise RuntimeError(rest or "as requested")
            if word == "wait":
                await self.finish.wait()
            if word == "hold":
                await self._gates.setdefault(rest, trio.Event()).wait()
        except trio.Cancelled:
            self.cancelled.append(task.request)
            raise
        finally:
            self.running[task.device_id] -= 1
        self.ended.append(task.request)
        return {"device": task.device_id, "echo": rest}


def device_config(device_id: str, **arguments: object) -> DeviceConfig:
    """Configure a device on the server."""
    return DeviceConfig(device_id, URL, **arguments)  # type: ignore[arg-type]


@attrs.define
class Fleet:
    """A server that can be stopped and restarted, and devices that connect and leave.

    Attributes:
        server: The running server; None while it is stopped.
        connects: The time and device of each connect, in order.
    """

    nursery: trio.Nursery
    work: Work
    limits: ServerLimits | None = None
    server: MemoryServer | None = None
    connects: list[tuple[float, str]] = attrs.field(factory=list[tuple[float, str]])
    _stop_server: trio.Event = attrs.field(factory=trio.Event)
    _server_scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _devices: dict[str, trio.CancelScope] = attrs.field(factory=dict[str, trio.CancelScope])

    async def connect(self, config: DeviceConfig) -> trio.abc.Stream:
        """Open a stream, for `open_constellation`."""
        self.connects.append((trio.current_time(), config.device_id))
        await trio.lowlevel.checkpoint()
        if self.server is None:
            raise OSError("the server is stopped")
        return self.server.connect()

    async def start_server(self) -> MemoryServer:
        """Start the server."""
        self.server = await self.nursery.start(self._run_server)
        assert self.server is not None
        return self.server

    async def _run_server(self, *, task_status: trio.TaskStatus[MemoryServer]) -> None:
        stop = self._stop_server = trio.Event()
        with trio.CancelScope() as self._server_scope:
            async with open_memory_server(session=self.work, limits=self.limits) as server:
                task_status.started(server)
                await stop.wait()
                self.server = None

    async def stop_server(self) -> None:
        """Stop the server: all connections are closed."""
        self._stop_server.set()
        self._devices.clear()
        await trio.testing.wait_all_tasks_blocked()

    async def kill_server(self) -> None:
        """Kill the server: all connections end without a close frame."""
        self.server = None
        self._server_scope.cancel()
        self._devices.clear()
        await trio.testing.wait_all_tasks_blocked()

    async def add_device(self, device_id: str, platform: str = "linux", features: list[str] | None = None) -> None:
        """Register a device with the server."""
        info = DeviceInfo(device_id, platform, supported_features=features or [])
        await self.nursery.start(partial(self._be_device, info))

    async def _be_device(self, info: DeviceInfo, *, task_status: trio.TaskStatus[None]) -> None:
        assert self.server is not None
        with trio.CancelScope() as scope:
            self._devices[info.device_id] = scope
            async with open_device_connection(
                self.server.url, info.device_id, system_info=info, stream=self.server.connect()
            ) as connection:
                task_status.started()
                await connection.wait_closed()

    async def remove_device(self, device_id: str) -> None:
        """Disconnect a device from the server."""
        self._devices.pop(device_id).cancel()
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def open_fleet(*device_ids: str, limits: ServerLimits | None = None) -> AsyncGenerator[Fleet]:
    """Open a server with these devices."""
    with trio.fail_after(SECONDS * 100):
        async with trio.open_nursery() as nursery:
            fleet = Fleet(nursery, Work(), limits)
            await fleet.start_server()
            for device_id in device_ids:
                await fleet.add_device(device_id)
            yield fleet
            nursery.cancel_scope.cancel()


class Journal:
    """The events that a subscriber received."""

    def __init__(self) -> None:
        self.events: list[Event | EventsLost] = []

    def of(self, kind: type[Event], device_id: str | None = None) -> list[Event]:
        """Return the events of one class, of one device or of all."""
        return [event for event in self.events if isinstance(event, kind) and device_id in (None, event.device_id)]


@asynccontextmanager
async def recording(constellation: Constellation) -> AsyncGenerator[Journal]:
    """Record the events of the block."""
    journal = Journal()
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        events = await stack.enter_async_context(constellation.subscribe())

        async def record() -> None:
            async for event in events:
                journal.events.append(event)

        nursery.start_soon(record)
        yield journal
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
